"""The networks of Keras Applications that have a norm: a table without Keras."""

import dataclasses
import re
from collections.abc import Callable

# K by stride for networks with inverted bottlenecks. For MobileNetV2 the paper gives K
# by row: 5 in the first four, 10 in the last three.
MOBILE = {2: 5, 4: 5, 8: 5, 16: 10, 32: 10}
BY_ANALOGY = (
    "The paper has no network of this family; K is that of its MobileNetV2, by stride."
)


def mobilenet_v2_components(layer) -> int:
    """Returns the published K of a layer (table 5.2; rows 1-4 end with block 9)."""
    block = re.match(r"block_(\d+)_", layer.name)
    first = int(block[1]) <= 9 if block else layer.name != "Conv_1_bn"
    return 5 if first else 10


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks from one module of `keras.applications`.

    Attributes:
        module: Name of the module.
        mode: Preprocessing of the images: "caffe", "tf" or "torch" as in Keras, "none"
            if it is part of the network.
        mode_without: Preprocessing of images if `mode` is "none" and that part of the
            network is left out, as with `include_preprocessing=False`.
        networks: {constructor: (pixels of the default input, trainable parameters)}.
        num_components: Argument of `convert_normalization`.
        note: Text added to the docstring.
    """

    module: str
    mode: str
    networks: dict[str, tuple[int, int]]
    num_components: dict | Callable | None = None
    note: str = "The paper has no network of this family."
    mode_without: str | None = None

    def has_preprocessing(self, channels: int, include_preprocessing: bool) -> bool:
        """Whether a network takes images of 0 to 255; ConvNeXts do so only for RGB."""
        rgb_only = self.module == "convnext"
        return (
            self.mode == "none"
            and include_preprocessing
            and (channels == 3 or not rgb_only)
        )


FAMILIES = (
    Family(
        "resnet",
        "caffe",
        {
            "ResNet50": (224, 25_781_730),
            "ResNet101": (224, 45_052_726),
            "ResNet152": (224, 60_927_074),
        },
        note="The paper's own network is resnet{50,101,152}_an: stride in the 3x3 "
        "convolution, no biases.",
    ),
    Family(
        "resnet_v2",
        "tf",
        {
            "ResNet50V2": (224, 25_770_348),
            "ResNet101V2": (224, 45_032_640),
            "ResNet152V2": (224, 60_899_308),
        },
    ),
    Family(
        "densenet",
        "torch",
        {
            "DenseNet121": (224, 8_341_308),
            "DenseNet169": (224, 14_690_588),
            "DenseNet201": (224, 20_674_140),
        },
        note="The paper's own network is densenet{121,169,201}_an.",
    ),
    Family("mobilenet", "tf", {"MobileNet": (224, 4_361_841)}, MOBILE, BY_ANALOGY),
    Family(
        "mobilenet_v2",
        "tf",
        {"MobileNetV2": (224, 3_672_640)},
        mobilenet_v2_components,
        "The paper's own network is mobilenetv2_an.",
    ),
    Family(
        "mobilenet_v3",
        "none",
        {"MobileNetV3Small": (224, 2_609_079), "MobileNetV3Large": (224, 5_616_640)},
        MOBILE,
        BY_ANALOGY,
        mode_without="tf",
    ),
    Family(
        "efficientnet",
        "none",
        {
            "EfficientNetB0": (224, 5_788_818),
            "EfficientNetB1": (240, 8_550_756),
            "EfficientNetB2": (260, 9_933_286),
            "EfficientNetB3": (300, 13_310_184),
            "EfficientNetB4": (380, 20_898_508),
            "EfficientNetB5": (456, 32_545_058),
            "EfficientNetB6": (528, 45_851_470),
            "EfficientNetB7": (600, 70_265_360),
        },
    ),
    Family(
        "efficientnet_v2",
        "none",
        {
            "EfficientNetV2B0": (224, 7_906_538),
            "EfficientNetV2B1": (240, 9_045_448),
            "EfficientNetV2B2": (260, 11_146_134),
            "EfficientNetV2B3": (300, 15_762_934),
        },
        mode_without="torch",
    ),
    Family(
        "efficientnet_v2",
        "none",
        {
            "EfficientNetV2S": (384, 23_462_452),
            "EfficientNetV2M": (480, 57_979_182),
            "EfficientNetV2L": (480, 125_286_720),
        },
        mode_without="tf128",
    ),
    Family(
        "convnext",
        "none",
        {
            "ConvNeXtTiny": (224, 28_947_700),
            "ConvNeXtSmall": (224, 50_983_516),
            "ConvNeXtBase": (224, 89_604_348),
            "ConvNeXtLarge": (224, 199_286_332),
            "ConvNeXtXLarge": (224, 352_222_076),
        },
        note="Its norms are layer normalization: attentive normalization over it is "
        "unpublished.",
        mode_without="torch",
    ),
    Family("inception_v3", "tf", {"InceptionV3": (299, 24_401_098)}),
    Family("inception_resnet_v2", "tf", {"InceptionResNetV2": (299, 56_699_234)}),
    Family(
        "nasnet",
        "tf",
        {"NASNetMobile": (224, 6_116_698), "NASNetLarge": (331, 93_166_750)},
    ),
    Family("xception", "tf", {"Xception": (299, 24_243_510)}),
)
ORIGINALS = {
    f"applications.AN{name}": (family, size)
    for family in FAMILIES
    for name, (size, _) in family.networks.items()
}
