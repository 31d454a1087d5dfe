"""Run directories, and the runs they belong to."""

import dataclasses
import json
import os

import keras
import pytest

from train import files, recipes, versions
from train.cli import RunError
from train.engine import run_directory

SPEC = run_directory.RunSpec(
    recipe=recipes.create_recipe("digits"),
    replicas=1,
    shape=(8, 8, 1),
    class_names=("0", "1"),
    images={"train": 10, "validation": 2, "test": 2},
    fingerprint="0",
)


def test_spec_is_restored_from_the_directory(tmp_path):
    claimed = run_directory.claim(tmp_path / "run", SPEC)
    assert dataclasses.replace(claimed, identity=0) == SPEC and claimed.identity
    assert run_directory.read_spec(tmp_path / "run") == claimed
    assert run_directory.claim(tmp_path / "run", SPEC) == claimed


def test_moved_data_is_recognized_at_its_new_location(tmp_path):
    claimed = run_directory.claim(tmp_path, SPEC)
    data = dataclasses.replace(SPEC.recipe.data, name="folder:/new/place")
    recipe = dataclasses.replace(SPEC.recipe, data=data)
    moved = run_directory.claim(tmp_path, dataclasses.replace(SPEC, recipe=recipe))
    assert moved.identity == claimed.identity
    assert run_directory.read_spec(tmp_path).recipe.data.name == "folder:/new/place"


def test_whole_numbers_are_equal_with_and_without_a_decimal_point():
    def epochs(value):
        return dataclasses.replace(SPEC.recipe, epochs=value)

    whole, point = (
        dataclasses.replace(SPEC, recipe=epochs(value)) for value in (5, 5.0)
    )
    assert whole.digest() == point.digest() != SPEC.digest()


def test_directory_of_another_run_is_refused_and_names_the_differing_fields(tmp_path):
    run_directory.claim(tmp_path, SPEC)
    other = dataclasses.replace(
        SPEC, replicas=2, recipe=recipes.create_recipe("digits_bn")
    )
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(RunError) as error:
        run_directory.claim(tmp_path, other)
    assert (
        "recipe.model.name: expected 'resnet20_an', received 'resnet20_bn'; "
        "replicas: expected 1, received 2"
    ) in str(error.value)
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]"])
def test_directory_without_a_run_is_refused(tmp_path, content):
    (tmp_path / "something").touch()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match="is not the directory of a run"):
        run_directory.claim(tmp_path, SPEC)


def test_file_instead_of_a_directory_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="Expected a directory.*the file"):
        run_directory.claim(tmp_path / "run", SPEC)


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "values.json"
    run_directory.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        run_directory.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["values.json"]


def test_directory_of_a_run_that_never_started_is_used(tmp_path):
    (tmp_path / f"config.json{files.WRITING}").write_text("{")
    run_directory.claim(tmp_path, SPEC)
    assert run_directory.read_spec(tmp_path).recipe == SPEC.recipe


def test_fields_of_a_newer_version_are_refused(tmp_path):
    run_directory.claim(tmp_path, SPEC)
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["recipe"]["data"]["cutmix"] = 1.0
    (tmp_path / "config.json").write_text(json.dumps(spec))
    with pytest.raises(RunError, match="unknown fields cutmix"):
        run_directory.read_spec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": 5}, "class_names: expected tuple"),
        ({"class_names": ["a", 5]}, "class_names: expected tuple"),
        ({"shape": None}, "shape: expected tuple"),
        ({"shape": [8, 8]}, "shape: expected tuple"),
        ({"images": {"train": "10"}}, "images: expected dict"),
        ({"replicas": 1.5}, "replicas: expected int, received 1.5"),
        ({"recipe": 5}, "recipe: expected Recipe, received 5"),
        ({"recipe": {"data": {"name": 5}}}, "recipe: data: name: expected str"),
        ({"recipe": {"data": {"image_size": [8]}}}, "image_size: expected int"),
        ({"recipe": {"batch_size": -1}}, "batch_size must be from 1"),
    ],
)
def test_spec_with_wrong_types_is_refused(tmp_path, changes, words):
    run_directory.claim(tmp_path, SPEC)
    file = tmp_path / "config.json"

    def changed(old, new):
        return old | {
            k: changed(old[k], v) if isinstance(v, dict) and k != "images" else v
            for k, v in new.items()
        }

    file.write_text(json.dumps(changed(json.loads(file.read_text()), changes)))
    with pytest.raises(RunError, match=f"readable config.json.*{words}"):
        run_directory.read_spec(tmp_path)


def test_deeply_nested_spec_and_pipe_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="readable config.json.*RecursionError"):
        run_directory.read_spec(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(RunError, match="a pipe or a device"):
        run_directory.read_spec(tmp_path)


@pytest.mark.parametrize("name", run_directory.DIRECTORIES)
def test_file_instead_of_a_directory_in_the_run_is_refused(tmp_path, name):
    run_directory.claim(tmp_path, SPEC)
    (tmp_path / name).touch()
    with pytest.raises(RunError, match=f"Expected a directory.*the file .*{name}"):
        run_directory.claim(tmp_path, SPEC)


def test_each_start_of_a_run_has_a_line_with_versions_and_commit(tmp_path):
    for step in (0, 60):
        run_directory.record_start(tmp_path, step)
    lines = (tmp_path / "starts.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["step"], second["step"]) == (0, 60)
    assert first["commit"] == versions.commit()
    assert first["versions"]["keras"] == keras.__version__
    assert "python" in first["command"] and first["time"].endswith("+00:00")


@pytest.mark.parametrize("torn", ['{"time": "20', '{"time": "ä'.encode()[:-1]])
def test_a_line_that_a_crash_cut_short_does_not_spoil_the_next_one(tmp_path, torn):
    run_directory.record_start(tmp_path, 0)
    with (tmp_path / "starts.jsonl").open("ab") as file:
        file.write(torn if isinstance(torn, bytes) else torn.encode())
    run_directory.record_start(tmp_path, 60)
    lines = (tmp_path / "starts.jsonl").read_bytes().splitlines()
    assert [json.loads(lines[i])["step"] for i in (0, 2)] == [0, 60]
