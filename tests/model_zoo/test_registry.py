"""Registry of networks by name."""

import pytest

import model_zoo
from model_zoo.registry import register_model


def test_names_match_patterns():
    assert model_zoo.list_models("resnet20_*") == ["resnet20_an", "resnet20_bn"]


def test_unknown_name_suggests_similar_names():
    with pytest.raises(ValueError, match="like resnet20_an.*Received: 'resnet20_ann'"):
        model_zoo.create_model("resnet20_ann")


def test_duplicate_name_raises():
    with pytest.raises(ValueError, match="'resnet20_an' is already registered"):
        register_model("resnet20_an", family="", lineage="", input_shape=(8, 8, 3))


def test_info_names_the_lineage():
    info = model_zoo.model_info("resnet20_an")
    assert "He et al. 2016, section 4.2" in info.lineage
    assert info.input_shape == (32, 32, 3)


def test_non_string_pattern_raises_type_error():
    with pytest.raises(TypeError, match="`pattern` must be a string. Received"):
        model_zoo.list_models(None)


@pytest.mark.parametrize("name", [None, 3, ["resnet20_an"]])
def test_non_string_name_raises_type_error(name):
    with pytest.raises(TypeError, match="`name` must be a string. Received: name="):
        model_zoo.create_model(name)


def test_name_with_an_empty_tag_is_unknown():
    with pytest.raises(ValueError, match="Received: 'resnet20_an.'"):
        model_zoo.create_model("resnet20_an.")
