"""The table of recipes: published numbers and costs."""

import csv

import pytest
from conftest import ROOT

import model_zoo
from model_zoo import parameter_counts
from train import recipes


@pytest.mark.parametrize(
    ("name", "top1"),
    [
        ("resnet50_an_120e", 78.41),
        ("resnet50_an_120e_release", 78.4),
        ("resnet50_se_120e", 77.9),
        ("resnet34_an_120e", 75.5),
        ("mobilenetv2_bn_150e", 71.31),
        ("aognet_12m_an_120e", 78.72),
        ("aognet_12m_an_200e", 79.43),
        ("aognet_12m_an_200e_release", 79.5),
        ("densenet121_bn_120e", None),
        ("resnet50_se_norm123_120e", 77.9),
        ("resnet50_an_all_120e", 77.8),
        ("digits", None),
    ],
)
def test_recipes_have_the_accuracy_of_their_code_and_epochs(name, top1):
    assert recipes.published_top1(name) == top1


def test_every_recipe_trains_a_network_of_the_zoo():
    for name in recipes.RECIPES:
        assert model_zoo.model_info(recipes.create_recipe(name).model.name)


def test_multiply_adds_are_those_of_the_table_of_networks():
    with open(ROOT / "results" / "zoo" / "networks.csv") as file:
        counted = {
            row["network"]: round(float(row["million_multiply_adds"]))
            for row in csv.DictReader(file)
        }
    for network, number in parameter_counts.MULTIPLY_ADDS.items():
        assert counted[f"{network}_bn"] == counted[f"{network}_an"] == number
    assert parameter_counts.MULTIPLY_ADDS.keys() == parameter_counts.COUNTS.keys()


def test_cost_is_that_of_all_images_forward_and_backward():
    recipe = recipes.create_recipe("resnet50_an_120e")
    expected = 3 * 4089e6 * 1_281_167 * 120
    assert recipes.multiply_adds(recipe) == pytest.approx(expected)
    small = recipes.multiply_adds(recipes.create_recipe("digits"))
    assert small == pytest.approx(3 * 41e6 / 16 * 1299 * 60)
    assert recipes.multiply_adds(recipes.create_recipe("photos")) is None


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_is_described_with_its_own_command(name):
    line = recipes.about(name).splitlines()[-1]
    assert line.startswith(f"python -m train --recipe={name} ")
    assert line.endswith(f" --workdir=runs/{name}")
    data = recipes.create_recipe(name).data.name
    assert ("--data=folder:DIR" in line) is data.startswith("folder:")
    assert ("--data=idx:" in line) is (data == "fashion_mnist")
    assert ("--data_dir=DIR" in line) is (data == "imagenet2012")


def test_given_flags_replace_those_of_the_command():
    flags = ["--data=folder:my photos", "--workdir=x", "--set=epochs=3", "--set=seed=1"]
    line = recipes.about("photos", flags).splitlines()[-1]
    assert line == (
        "python -m train --recipe=photos '--data=folder:my photos' --workdir=x "
        "--set=epochs=3 --set=seed=1"
    )
