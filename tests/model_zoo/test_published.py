"""The published networks match those built by their authors' code."""

import math

import numpy as np
import pytest
from keras import ops

import model_zoo
from model_zoo import published
from tests.model_zoo import reference

MODES = (
    {"gate_normalization": None, "gate_activation": "sigmoid"},
    {
        "gate_hidden_units": (20, 20, 40, 40),
        "gate_normalization": None,
        "gate_activation": "sigmoid",
    },
    {},
    {"gate_hidden_units": (20, 20, 40, 40)},
    {"gate_normalization": None},
    {"gate_activation": "sigmoid"},
    {"gate_activation": "softmax"},
)
MODE_PARAMETERS = (
    25_755_170,
    25_832_750,
    25_755_420,
    25_833_500,
    25_755_170,
    25_755_420,
    25_755_420,
)


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize("case", reference.CASES)
def test_logits_match_the_reference(case):
    known, arrays = reference.read(case)
    model, _ = reference.build(case)
    assert parameters(model) == known["total_trainable_parameters"]
    logits = ops.convert_to_numpy(model(reference.images("eval224", 2, 224)))
    noise = known["float32_vs_float64_max_abs_logit_diff"]
    expected = arrays["logits_f64"]
    assert np.abs(logits - expected).max() <= 1e-4 * expected.std() + 20 * noise


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18_an", {"position": "norm2"}, 11_789_592),
        ("resnet34_an", {"position": "norm1"}, 21_996_060),
        ("resnet34_an", {"position": "norm2"}, 21_996_060),
        ("resnet34_an", {"position": "norm12"}, 22_194_448),
        ("resnet50_an", {"position": "norm2"}, 25_755_420),
        ("resnet50_an", {"position": "norm3"}, 26_349_084),
        ("resnet50_an", {"position": "norm123"}, 26_745_860),
        ("resnet50_an", {"position": "all"}, 26_947_472),
        ("resnet50_se", {"position": "norm2"}, 26_185_768),
        ("resnet50_se", {"position": "norm3"}, 28_071_976),
        ("resnet50_se", {"position": "norm123"}, 29_329_448),
        ("mobilenetv2_bn", {"width_multiplier": 0.5}, 1_965_448),
        ("mobilenetv2_bn", {"width_multiplier": 1.4}, 6_082_580),
        ("mobilenetv2_an", {"width_multiplier": 0.5}, 2_049_512),
        ("mobilenetv2_an", {"width_multiplier": 1.4}, 6_316_762),
        *(
            pytest.param(
                "resnet50_an", {"norm_options": mode}, count, marks=pytest.mark.slow
            )
            for mode, count in zip(MODES, MODE_PARAMETERS, strict=True)
        ),
    ],
)
def test_variants_have_the_published_parameter_count(name, options, count):
    assert parameters(model_zoo.create_model(name, **options)) == count


# The specification's table of counts, obtained by running the authors' code.
PUBLISHED_COUNTS = {
    "resnet18_an": 11_789_592,
    "resnet34_bn": 21_797_672,
    "resnet34_an": 21_996_060,
    "resnet50_bn": 25_557_032,
    "resnet50_an": 25_755_420,
    "resnet34_se": 22_426_408,
    "resnet50_se": 26_185_768,
    "resnet50d_bn": 25_576_264,
    "resnet50d_an": 25_774_652,
    "resnet101_bn": 44_549_160,
    "resnet101_an": 45_000_644,
    "resnet101d_bn": 44_568_392,
    "resnet101d_an": 45_019_876,
    "resnet152_bn": 60_192_808,
    "resnet152_an": 60_852_252,
    "resnet152d_bn": 60_212_040,
    "resnet152d_an": 60_871_484,
    "resnext50_32x4d_bn": 25_028_904,
    "resnext50_32x4d_an": 25_425_180,
    "resnext101_32x8d_bn": 88_791_336,
    "resnext101_32x8d_an": 90_593_732,
    "resnext101_64x4d_bn": 83_455_272,
    "resnext101_64x4d_an": 85_257_668,
    "mobilenetv2_bn": 3_504_872,
    "mobilenetv2_an": 3_672_760,
    "densenet121_bn": 7_978_856,
    "densenet121_an": 8_342_288,
    "densenet161_bn": 28_681_000,
    "densenet161_an": 29_448_688,
    "densenet169_bn": 14_149_480,
    "densenet169_an": 14_692_048,
    "densenet201_bn": 20_013_928,
    "densenet201_an": 20_675_920,
    "aognet_12m_bn": 12_259_099,
    "aognet_12m_an": 12_373_355,
    "aognet_40m_bn": 40_153_004,
    "aognet_40m_an": 40_388_880,
    "aognet_cifar_bn": 1_248_282,
}


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_model_info_has_the_published_parameter_count(name):
    assert model_zoo.model_info(name).parameters == PUBLISHED_COUNTS[name]


def test_accuracies_belong_to_registered_networks():
    names = {*published.RELEASE_ACCURACY, *published.PAPER_ACCURACY}
    assert names <= set(model_zoo.list_models())


# Errors in percent, BN then AN, in the README of the paper's code.
PAPER_ERRORS = {
    "resnet50": ((23.01, 6.68), (21.59, 5.88)),
    "resnet101": ((21.33, 5.85), (20.61, 5.41)),
    "mobilenetv2": ((28.69, 9.33), (26.67, 8.56)),
    "aognet_12m": ((22.22, 6.06), (21.28, 5.76)),
    "aognet_40m": ((19.84, 4.94), (19.33, 4.72)),
    "resnet50d": ((21.08, 5.56), (19.92, 5.04)),
    "resnet101d": ((19.71, 4.89), (18.85, 4.63)),
}
PAPER_ERRORS_200_EPOCHS = {
    "aognet_12m": ((21.63, 5.60), (20.57, 5.38)),
    "aognet_40m": ((18.70, 4.47), (18.13, 4.26)),
}
# Accuracies in percent, BN then AN, in the documentation of the release.
RELEASE = {
    "resnet34": ((74.5, 91.9), (75.5, 92.6)),
    "resnet50": ((76.9, 93.4), (78.4, 94.1)),
    "resnet101": ((78.8, 94.2), (79.4, 94.6)),
    "mobilenetv2": ((71.7, 90.4), (73.2, 91.2)),
    "densenet121": (None, (77.4, 93.6)),
    "aognet_12m": ((77.5, 93.9), (78.7, 94.2)),
    "aognet_40m": ((80.2, 95.1), (80.7, 95.3)),
    "resnet50d": ((79.2, 94.5), (80.0, 95.0)),
    "resnet101d": ((80.2, 95.1), (81.0, 95.4)),
}
RELEASE_200_EPOCHS = {
    "aognet_12m": ((78.2, 94.3), (79.5, 94.7)),
    "aognet_40m": ((81.2, 95.6), (81.8, 95.7)),
}


def by_name(table):
    pairs = {
        f"{network}_{kind}": pair
        for network, both in table.items()
        for kind, pair in zip(("bn", "an"), both, strict=True)
    }
    return {name: pair for name, pair in pairs.items() if pair}


def accuracies(table):
    return {
        name: tuple(round(100 - error, 2) for error in errors)
        for name, errors in by_name(table).items()
    }


def test_accuracies_are_the_published_ones():
    assert accuracies(PAPER_ERRORS) == published.PAPER_ACCURACY
    se = {"resnet50_se": (77.9, 93.9)}
    assert by_name(RELEASE) | se == published.RELEASE_ACCURACY
    paper = accuracies(PAPER_ERRORS_200_EPOCHS)
    expected = {
        name: (*pair, *paper[name])
        for name, pair in by_name(RELEASE_200_EPOCHS).items()
    }
    assert expected == published.LONGER


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "thousands"),
    [
        ("resnet34_an_norm12", 22_194),
        ("resnet50_an_norm3", 26_349),
        ("resnet50_an_all", 26_947),
        ("resnet50_se_norm3", 28_072),
        ("resnet50_se_norm123", 29_329),
    ],
)
def test_networks_with_other_positions_have_the_published_counts(name, thousands):
    assert name in published.OTHER_POSITIONS
    network, _, position = name.rpartition("_")
    model = model_zoo.create_model(network, position=position)
    count = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert round(count / 1000) == thousands


def test_info_separates_the_two_published_tables():
    info = model_zoo.model_info("resnet50_an")
    assert (info.top1, info.top5) == (78.4, 94.1)
    assert (info.paper_top1, info.paper_top5) == (78.41, 94.12)
    assert info.recipe.startswith("120 epochs")
    untrained = model_zoo.model_info("resnet152_an")
    assert (untrained.top1, untrained.paper_top1, untrained.recipe) == (None,) * 3
