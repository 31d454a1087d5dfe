import pytest

from train import files


@pytest.mark.parametrize(("mode", "content"), [("w", "new"), ("wb", b"new")])
def test_complete_file_replaces_the_old_one(mode, content, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with files.replaced(path, mode) as file:
        file.write(content)
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_old_file_stays_if_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replaced(path) as file:
        file.write("half of")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
