"""The table of networks agrees with the networks."""

import pytest

import model_zoo
from model_zoo import listing


def test_table_holds_the_registered_networks():
    for name, (pixels, parameters) in listing.networks().items():
        info = model_zoo.model_info(name)
        assert info.input_shape == (pixels, pixels, 3)
        assert info.parameters == parameters
    assert list(listing.networks()) == model_zoo.list_models()


@pytest.mark.parametrize(
    "name", ["resnet50_an", "resnet20_an", "densenet121_an", "applications.ANResNet50"]
)
def test_line_shows_the_record_of_the_network(name):
    header, line, *footer = listing.lines(name)
    info = model_zoo.model_info(name)
    height, width, _ = info.input_shape
    accuracies = f"{info.top1 or ''}", f"{info.paper_top1 or ''}"
    facts = f"{info.parameters:,}", f"{height}x{width}", *accuracies, *info.weights
    assert line.split() == [name, *filter(None, facts)]
    assert header.split()[3:5] == ["published", "paper"]
    assert "weights behind these figures are not included" in footer[-1]
