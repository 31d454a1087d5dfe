"""python -m model_zoo: tables, and exit codes on errors."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

import model_zoo
from model_zoo.__main__ import main


def test_list_has_a_line_for_every_network(capsys):
    assert main(["list"]) == 0
    first_words = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line
    ]
    assert first_words[:-3] == ["network", *model_zoo.list_models()]
    assert first_words[-3:] == ["published:", "paper:", "The"]


def test_list_accepts_a_pattern(capsys):
    assert main(["list", "densenet1?1_an"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["densenet121_an", "8,342,288", "224x224", "77.4"]
    assert main(["list", "vgg*"]) == 2
    assert "No network matches 'vgg*'" in capsys.readouterr().err


def test_list_shows_only_networks_with_included_weights_on_request(capsys):
    assert main(["list", "--pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : lines.index("")]] == [
        "resnet20_an",
        "resnet20_bn",
    ]
    assert main(["list", "applications.*", "--pretrained"]) == 2
    assert "No network with weights in the zoo matches" in capsys.readouterr().err


def test_list_imports_neither_keras_nor_a_backend(command):
    done = command("-X", "importtime", "-m", "model_zoo", "list", "resnet20_*")
    assert "resnet20_an" in done.stdout
    lines = done.stderr.splitlines()
    assert all(line.startswith("import time:") for line in lines)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert "model_zoo" in imported
    assert not imported & {"keras", "tensorflow", "jax", "torch", "numpy"}


def test_list_command_of_another_package_gets_the_whole_zoo(command, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").write_text(
        "import model_zoo, keras\n"
        "print(model_zoo.list_models(), keras.saving.get_custom_objects())"
    )
    (tmp_path / "app/__main__.py").touch()
    done = command("-m", "app", "list", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    for name in ("resnet50_an", "GroupedConv2D", "AttentiveNormalization"):
        assert name in done.stdout


def test_info_shows_all_facts(capsys):
    assert main(["info", "resnet50_an"]) == 0
    out = capsys.readouterr().out
    for text in (
        "25,755,420",
        "78.4 / 94.1",
        "78.41 / 94.12",
        "40.8 / 36.4",
        "41.6 / 37.4",
        "He et al. 2016",
        "120",
        "0.485",
    ):
        assert text in out
    assert main(["info", "resnet20_an"]) == 0
    out = capsys.readouterr().out
    for text in ("fashion_mnist", "test_top1 0.9338", "sha256", "Apache-2.0", "0.286"):
        assert text in out
    assert main(["info", "aognet_40m_bn"]) == 0
    out = capsys.readouterr().out
    for text in ("Nesterov", "81.2 / 95.6", "81.3 / 95.53", "43.4 / 38.5"):
        assert text in out
    for name, text in (
        ("ResNet50", "0.4076, 0.458, 0.485; .*, BGR"),
        ("EfficientNetB0", "0 to 255 as they are"),
    ):
        assert main(["info", f"applications.AN{name}"]) == 0
        assert re.search(f"images +.*{text}", capsys.readouterr().out)


def test_unknown_name_suggests_similar_names(capsys):
    assert main(["info", "resnet50_am"]) == 2
    assert "one like resnet50_an" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["convert"], ["remove", "resnet50_an"]])
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m model_zoo" in capsys.readouterr().err


def test_convert_options_must_be_assignments(capsys):
    arguments = ["convert", "x", "--model=resnet18_an", "--out=a.weights.h5", "--set=a"]
    assert main(arguments) == 2
    assert "Expected --set=NAME=VALUE. Received: 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["-" * 100_000, "{[]: 1}", "1is 2", "\0", f"0x{'f' * 5000}", "(" * 1000]
)
def test_malformed_convert_values_give_a_one_line_error(value, tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    out = f"--out={tmp_path / 'a.weights.h5'}"
    arguments = ["convert", str(tmp_path / "x.pth"), "--model=resnet18_an", out]
    assert main([*arguments, f"--set=position={value}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_tilde_is_the_home_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["convert", "~/x.pth", "--model=resnet18_an", "--out=~/a.weights.h5"]
    assert main(arguments) == 1
    assert f"Received: '{tmp_path}/x.pth'" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["missing/table.csv", "", "."])
def test_table_finds_a_wrong_file_before_it_builds_networks(file, tmp_path, capsys):
    assert main(["table", "--csv", file and str(tmp_path / file)]) == 2
    assert "Expected --csv to be a file in an existing" in capsys.readouterr().err


@pytest.mark.slow
def test_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m model_zoo list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "0"
    assert "error:" not in done.stderr


@pytest.mark.parametrize("out", ["a.h5", "no/such/directory/a.weights.h5", "there"])
def test_convert_only_writes_new_weights_files(out, tmp_path, capsys):
    (tmp_path / "there.weights.h5").write_bytes(b"precious")
    out = tmp_path / ("there.weights.h5" if out == "there" else out)
    assert main(["convert", "x.pth", "--model=resnet18_an", f"--out={out}"]) == 1
    assert "must be a new file *.weights.h5" in capsys.readouterr().err
    assert (tmp_path / "there.weights.h5").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_info_draws_the_graphs_of_an_aognet(suffix, start, capsys, tmp_path):
    file = tmp_path / f"graphs.{suffix}"
    assert main(["info", "aognet_12m_an", "--draw", str(file)]) == 0
    assert "12,373,355" in capsys.readouterr().out
    assert file.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "file", "code", "words"),
    [
        ("resnet50_an", "graph.png", 2, "an AOGNet. Received: resnet50_an."),
        ("aognet_12m_an", "graph", 1, "Expected an image file with a suffix, such as"),
        ("aognet_12m_an", "graph.doc", 1, "Format 'doc' is not supported"),
        ("aognet_12m_an", "missing/graph.png", 1, "No such file or directory"),
    ],
)
def test_info_that_cannot_draw_prints_only_an_error(
    name, file, code, words, capsys, tmp_path
):
    assert main(["info", name, "--draw", str(tmp_path / file)]) == code
    printed = capsys.readouterr()
    assert not printed.out and words in printed.err
    assert not list(tmp_path.iterdir())
