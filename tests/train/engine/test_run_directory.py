"""Run directories: whose they are."""

import dataclasses
import json
import os

import pytest

from train import recipes
from train.cli import RunError
from train.engine import run_directory

FACTS = run_directory.Facts(
    recipe=recipes.create_recipe("digits"),
    replicas=1,
    shape=(8, 8, 1),
    class_names=("0", "1"),
    images={"train": 10, "validation": 2, "test": 2},
    fingerprint="0",
)


def test_facts_survive_the_directory(tmp_path):
    claimed = run_directory.claim(tmp_path / "run", FACTS)
    assert dataclasses.replace(claimed, identity=0) == FACTS and claimed.identity
    assert run_directory.read_facts(tmp_path / "run") == claimed
    assert run_directory.claim(tmp_path / "run", FACTS) == claimed


def test_data_that_has_moved_is_the_same_and_found_at_its_new_place(tmp_path):
    claimed = run_directory.claim(tmp_path, FACTS)
    data = dataclasses.replace(FACTS.recipe.data, name="folder:/new/place")
    recipe = dataclasses.replace(FACTS.recipe, data=data)
    moved = run_directory.claim(tmp_path, dataclasses.replace(FACTS, recipe=recipe))
    assert moved.identity == claimed.identity
    assert run_directory.read_facts(tmp_path).recipe.data.name == "folder:/new/place"


def test_whole_numbers_are_the_same_with_and_without_a_point():
    def epochs(value):
        return dataclasses.replace(FACTS.recipe, epochs=value)

    whole, point = (
        dataclasses.replace(FACTS, recipe=epochs(value)) for value in (5, 5.0)
    )
    assert whole.digest() == point.digest() != FACTS.digest()


def test_directory_of_another_run_is_refused_with_the_differing_fields(tmp_path):
    run_directory.claim(tmp_path, FACTS)
    other = dataclasses.replace(
        FACTS, replicas=2, recipe=recipes.create_recipe("digits_bn")
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
        run_directory.claim(tmp_path, FACTS)


def test_file_in_place_of_a_directory_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="Expected a directory.*the file"):
        run_directory.claim(tmp_path / "run", FACTS)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "values.json"
    run_directory.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        run_directory.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["values.json"]


def test_directory_of_a_run_that_never_began_is_taken(tmp_path):
    (tmp_path / f"config.json{run_directory.WRITING}").write_text("{")
    run_directory.claim(tmp_path, FACTS)
    assert run_directory.read_facts(tmp_path).recipe == FACTS.recipe


def test_fields_of_a_newer_version_are_refused(tmp_path):
    run_directory.claim(tmp_path, FACTS)
    facts = json.loads((tmp_path / "config.json").read_text())
    facts["recipe"]["data"]["cutmix"] = 1.0
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="unknown fields cutmix"):
        run_directory.read_facts(tmp_path)


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
def test_facts_of_other_types_are_damage(tmp_path, changes, words):
    run_directory.claim(tmp_path, FACTS)
    file = tmp_path / "config.json"

    def changed(old, new):
        return old | {
            k: changed(old[k], v) if isinstance(v, dict) and k != "images" else v
            for k, v in new.items()
        }

    file.write_text(json.dumps(changed(json.loads(file.read_text()), changes)))
    with pytest.raises(RunError, match=f"readable config.json.*{words}"):
        run_directory.read_facts(tmp_path)


def test_facts_of_endless_depth_or_in_a_pipe_are_damage(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="readable config.json.*RecursionError"):
        run_directory.read_facts(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(RunError, match="a pipe or a device"):
        run_directory.read_facts(tmp_path)


@pytest.mark.parametrize("name", run_directory.DIRECTORIES)
def test_file_in_place_of_a_directory_of_the_run_is_refused(tmp_path, name):
    run_directory.claim(tmp_path, FACTS)
    (tmp_path / name).touch()
    with pytest.raises(RunError, match=f"Expected a directory.*the file .*{name}"):
        run_directory.claim(tmp_path, FACTS)
