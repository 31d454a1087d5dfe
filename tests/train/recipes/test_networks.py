"""The network of every recipe."""

import keras
import pytest

from model_zoo.parameter_counts import parameter_count
from train import recipes
from train.engine import models, run_directory

SHAPES = {  # of images that are not resized
    "digits": (8, 8, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "svhn_cropped": (32, 32, 3),
}
CLASSES = {"cifar100": 100, "imagenet2012": 1000}


def _cases():
    """One recipe for each network and kind of images."""
    first = {}
    for name in recipes.RECIPES:
        recipe = recipes.create_recipe(name)
        data, size = recipe.data.name.partition(":")[0], recipe.data.image_size
        shape = (size, size, 3) if size else SHAPES[data]
        first.setdefault((recipe.model.name, shape, CLASSES.get(data, 10)), name)
    return [(name, *case[1:]) for case, name in first.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "classes"), _cases())
def test_network_is_built_for_its_data(name, shape, classes):
    recipe = recipes.create_recipe(name)
    names = tuple(map(str, range(classes)))
    model = models.create_model(run_directory.RunSpec(recipe, 1, shape, names, {}, ""))
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, classes)
    assert keras.config.dtype_policy().name == "float32"
    if recipe.data.name == "imagenet2012":
        assert models.trainable_parameters(model) == parameter_count(recipe.model.name)
        assert "float16" in {layer.compute_dtype for layer in model.layers}
