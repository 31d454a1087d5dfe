import pytest

from train import cli, files


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


def test_a_version_appears_when_it_is_complete(tmp_path):
    version = tmp_path / "models" / "3"
    with files.new_version(version) as aside:
        aside.mkdir()
        (aside / "model").write_text("new")
        (aside.parent / "notes").write_text("for the check")
        assert not version.exists()
    assert (version / "model").read_text() == "new"
    assert [*version.parent.iterdir()] == [version]


def test_a_version_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.new_version(tmp_path / "3") as aside:
        aside.mkdir()
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / ".writing-2" / "2").mkdir(parents=True)
    with files.new_version(tmp_path / "3") as aside:
        aside.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_versions_are_not_replaced(tmp_path):
    (tmp_path / "3").mkdir()
    with pytest.raises(cli.RunError, match="3 already exists"):
        with files.new_version(tmp_path / "3"):
            pass


def test_one_process_writes_versions_at_a_time(tmp_path):
    with files.new_version(tmp_path / "3") as aside:
        aside.mkdir()
        with pytest.raises(cli.RunError, match="Another process is exporting to"):
            with files.new_version(tmp_path / "4"):
                pass
