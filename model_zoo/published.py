"""Published accuracy and training of each network.

Accuracies are top-1 and top-5 on the ImageNet-1k validation images, in percent, with
one centre crop of 224 pixels.
"""

# iVMCL-Release, classification table.
RELEASE_ACCURACY = {
    "resnet34_bn": (74.5, 91.9),
    "resnet34_an": (75.5, 92.6),
    "resnet50_bn": (76.9, 93.4),
    "resnet50_an": (78.4, 94.1),
    "resnet50_se": (77.9, 93.9),
    "resnet101_bn": (78.8, 94.2),
    "resnet101_an": (79.4, 94.6),
    "resnet50d_bn": (79.2, 94.5),
    "resnet50d_an": (80.0, 95.0),
    "resnet101d_bn": (80.2, 95.1),
    "resnet101d_an": (81.0, 95.4),
    "mobilenetv2_bn": (71.7, 90.4),
    "mobilenetv2_an": (73.2, 91.2),
    "densenet121_an": (77.4, 93.6),
    "aognet_12m_bn": (77.5, 93.9),
    "aognet_12m_an": (78.7, 94.2),
    "aognet_40m_bn": (80.2, 95.1),
    "aognet_40m_an": (80.7, 95.3),
}

# The same with AN, or squeeze-and-excitation, at other positions of a block.
OTHER_POSITIONS = {
    "resnet34_an_norm12": (75.1, 92.4),
    "resnet50_an_norm3": (78.2, 94.0),
    "resnet50_an_all": (77.8, 93.8),
    "resnet50_se_norm3": (77.7, 93.9),
    "resnet50_se_norm123": (77.9, 94.0),
}

# AOGNet-v2, the paper's own code. It reports errors, 100 minus these.
PAPER_ACCURACY = {
    "resnet50_bn": (76.99, 93.32),
    "resnet50_an": (78.41, 94.12),
    "resnet101_bn": (78.67, 94.15),
    "resnet101_an": (79.39, 94.59),
    "resnet50d_bn": (78.92, 94.44),
    "resnet50d_an": (80.08, 94.96),
    "resnet101d_bn": (80.29, 95.11),
    "resnet101d_an": (81.15, 95.37),
    "mobilenetv2_bn": (71.31, 90.67),
    "mobilenetv2_an": (73.33, 91.44),
    "aognet_12m_bn": (77.78, 93.94),
    "aognet_12m_an": (78.72, 94.24),
    "aognet_40m_bn": (80.16, 95.06),
    "aognet_40m_an": (80.67, 95.28),
}

# The same with 200 epochs, label smoothing 0.1 and mixup 0.2: top-1 and top-5 of the
# release, then of the paper's code. The other figures of AOGNet are for 120 epochs;
# those of `resnet{50,101}d` are for this training.
LONGER_COLUMNS = (
    "published_top1_200_epochs",
    "published_top5_200_epochs",
    "paper_top1_200_epochs",
    "paper_top5_200_epochs",
)
LONGER = {
    "aognet_12m_bn": (78.2, 94.3, 78.37, 94.40),
    "aognet_12m_an": (79.5, 94.7, 79.43, 94.62),
    "aognet_40m_bn": (81.2, 95.6, 81.30, 95.53),
    "aognet_40m_an": (81.8, 95.7, 81.87, 95.74),
}

# Mask R-CNN with this backbone and a feature pyramid, 24 epochs, on COCO val2017: box
# and mask AP, then the same with AN over group normalization in the heads.
COCO_COLUMNS = (
    "coco_box_ap",
    "coco_mask_ap",
    "coco_box_ap_an_heads",
    "coco_mask_ap_an_heads",
)
COCO = {
    "resnet50_bn": (39.2, 35.2),
    "resnet50_an": (40.8, 36.4, 41.6, 37.4),
    "resnet101_bn": (41.4, 36.8),
    "resnet101_an": (43.1, 38.2, 43.2, 38.8),
    "aognet_12m_bn": (40.7, 36.4),
    "aognet_12m_an": (42.0, 37.8, 43.0, 38.7),
    "aognet_40m_bn": (43.4, 38.5),
    "aognet_40m_an": (44.1, 39.0, 44.9, 40.2),
}

# Millions, the same with BN and AN (not SE), in the README of the paper's code.
MULTIPLY_ADDS = {
    "resnet50": 4090,
    "resnet101": 8120,
    "mobilenetv2": 340,
    "aognet_12m": 2190,
    "aognet_40m": 7510,
}

# How the authors trained them, on 8 GPUs: SGD with momentum 0.9, five epochs of
# warm-up, cosine decay; random resized crops, horizontal flips. Rates are for the whole
# batch.
_120 = "120 epochs, batch 1024, rate 0.4, L2 1e-4"
_120_LARGE = "120 epochs, batch 2048, rate 0.8, L2 1e-4"
_200 = "200 epochs, batch 1024, rate 0.4, L2 1e-4, label smoothing 0.1, mixup 0.2"
_150 = "150 epochs, batch 1024, rate 0.2, L2 4e-5"
RECIPES = {
    "resnet34": _120_LARGE,
    "resnet50": _120,
    "resnet101": _120,
    "resnet50d": _200,
    "resnet101d": _200,
    "mobilenetv2": _150,
    "densenet121": _120_LARGE,
    "resnet50_se": _120_LARGE,  # of the release, unlike that of BN and AN
    "aognet_12m": _120_LARGE,
    "aognet_12m_bn": f"{_120_LARGE}, bicubic interpolation",
    "aognet_40m": _120,
    "aognet_40m_bn": f"{_120}, Nesterov momentum",
}


def published(name: str) -> dict:
    """Returns fields of `ModelInfo`; `None` where nothing was published."""
    network = name.rpartition("_")[0]
    release = RELEASE_ACCURACY.get(name, (None, None))
    paper = PAPER_ACCURACY.get(name, (None, None))
    return {
        "top1": release[0],
        "top5": release[1],
        "paper_top1": paper[0],
        "paper_top5": paper[1],
        "recipe": RECIPES.get(name, RECIPES.get(network)) if release[0] else None,
    }


def multiply_adds(name: str) -> int | None:
    """Returns published multiply-adds in millions; `None` if not published."""
    network, _, variant = name.rpartition("_")
    return MULTIPLY_ADDS.get(network) if variant in ("bn", "an") else None
