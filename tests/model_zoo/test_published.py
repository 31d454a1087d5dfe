"""The published networks match those built by their authors' code."""

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


def test_info_separates_the_two_published_tables():
    info = model_zoo.model_info("resnet50_an")
    assert (info.top1, info.top5) == (78.4, 94.1)
    assert (info.paper_top1, info.paper_top5) == (78.41, 94.12)
    assert info.recipe.startswith("120 epochs")
    untrained = model_zoo.model_info("resnet152_an")
    assert (untrained.top1, untrained.paper_top1, untrained.recipe) == (None,) * 3
