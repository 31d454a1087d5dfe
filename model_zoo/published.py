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
    "resnet101_bn": (78.8, 94.2),
    "resnet101_an": (79.4, 94.6),
    "resnet50d_bn": (79.2, 94.5),
    "resnet50d_an": (80.0, 95.0),
    "resnet101d_bn": (80.2, 95.1),
    "resnet101d_an": (81.0, 95.4),
    "mobilenetv2_bn": (71.7, 90.4),
    "mobilenetv2_an": (73.2, 91.2),
    "densenet121_an": (77.4, 93.6),
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
        "recipe": RECIPES.get(network) if release[0] else None,
    }
