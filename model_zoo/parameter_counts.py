"""Inputs and parameter counts of the networks; tests build each one and count.

Height and width of the default input, in pixels; trainable parameters with this input
and the default classes: BN, AN and, where it is registered, SE. The authors' code gives
the same numbers where it can build the network; the others are our own.
"""

VARIANTS = ("bn", "an", "se")
COUNTS = {
    "resnet8": (32, 75_290, 80_426),
    "resnet20": (32, 269_722, 285_130),
    "resnet32": (32, 464_154, 489_834),
    "resnet44": (32, 658_586, 694_538),
    "resnet56": (32, 853_018, 899_242),
    "resnet29": (32, 313_114, 328_522),
    "resnet164": (32, 1_704_154, 1_796_602),
    "resnet14_w16": (64, 511_514, 514_674),
    "resnet18": (224, 11_689_512, 11_789_592),
    "resnet34": (224, 21_797_672, 21_996_060, 22_426_408),
    "resnet50": (224, 25_557_032, 25_755_420, 26_185_768),
    "resnet50d": (224, 25_576_264, 25_774_652),
    "resnet101": (224, 44_549_160, 45_000_644),
    "resnet101d": (224, 44_568_392, 45_019_876),
    "resnet152": (224, 60_192_808, 60_852_252),
    "resnet152d": (224, 60_212_040, 60_871_484),
    "resnext50_32x4d": (224, 25_028_904, 25_425_180),
    "resnext101_32x8d": (224, 88_791_336, 90_593_732),
    "resnext101_64x4d": (224, 83_455_272, 85_257_668),
    "wide_resnet50_2": (224, 68_883_240, 69_279_516),
    "mobilenetv2": (224, 3_504_872, 3_672_760),
    "densenet121": (224, 7_978_856, 8_342_288),
    "densenet161": (224, 28_681_000, 29_448_688),
    "densenet169": (224, 14_149_480, 14_692_048),
    "densenet201": (224, 20_013_928, 20_675_920),
    "aognet_12m": (224, 12_259_099, 12_373_355),
    "aognet_40m": (224, 40_153_004, 40_388_880),
    "aognet_cifar": (32, 1_248_282, 1_273_962),
}

# Multiply-adds in millions with the default input, which BN and AN share.
MULTIPLY_ADDS = {
    "resnet8": 12,
    "resnet20": 41,
    "resnet32": 69,
    "resnet44": 97,
    "resnet56": 125,
    "resnet29": 47,
    "resnet164": 248,
    "resnet14_w16": 9,
    "resnet18": 1_814,
    "resnet34": 3_664,
    "resnet50": 4_089,
    "resnet50d": 4_329,
    "resnet101": 7_801,
    "resnet101d": 8_041,
    "resnet152": 11_514,
    "resnet152d": 11_753,
    "resnext50_32x4d": 4_230,
    "resnext101_32x8d": 16_414,
    "resnext101_64x4d": 15_460,
    "wide_resnet50_2": 11_398,
    "mobilenetv2": 301,
    "densenet121": 2_834,
    "densenet161": 7_728,
    "densenet169": 3_360,
    "densenet201": 4_291,
    "aognet_12m": 2_108,
    "aognet_40m": 7_351,
    "aognet_cifar": 185,
}


def parameter_count(name: str) -> int | None:
    """Returns the count of `NETWORK_VARIANT`; `None` if it is not in the table."""
    network, _, variant = name.rpartition("_")
    _, *counts = COUNTS.get(network, (None,))
    return dict(zip(VARIANTS, counts, strict=False)).get(variant)
