"""Experiments on COCO by name: the rows of the paper's table, and two more networks."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A detector, with its published results on COCO val2017 in percent.

    Attributes:
        network: Name of the backbone in the zoo.
        heads: Norm of the box head: `"none"`, or `"an_gn"` with group normalization in
            mask head and pyramid.
        is_cascade: Whether it is a Cascade R-CNN.
        box_ap, mask_ap: Published average precisions; `None` if there are none.
    """

    network: str
    heads: str = "none"
    is_cascade: bool = False
    box_ap: float | None = None
    mask_ap: float | None = None

    @property
    def name(self) -> str:
        kind = "cascadercnn" if self.is_cascade else "maskrcnn"
        heads = "" if self.heads == "none" else f"_{self.heads}"
        return f"{kind}_{self.network}{heads}_coco"


# Li, Sun and Wu, Attentive Normalization, ECCV 2020, results on COCO.
TABLE = (
    Row("resnet50_bn", "none", False, 39.2, 35.2),
    Row("resnet50_an", "none", False, 40.8, 36.4),
    Row("resnet50_an", "an_gn", False, 41.6, 37.4),
    Row("resnet101_bn", "none", False, 41.4, 36.8),
    Row("resnet101_an", "none", False, 43.1, 38.2),
    Row("resnet101_an", "an_gn", False, 43.2, 38.8),
    Row("aognet_12m_bn", "none", False, 40.7, 36.4),
    Row("aognet_12m_an", "none", False, 42.0, 37.8),
    Row("aognet_12m_an", "an_gn", False, 43.0, 38.7),
    Row("aognet_40m_bn", "none", False, 43.4, 38.5),
    Row("aognet_40m_an", "none", False, 44.1, 39.0),
    Row("aognet_40m_an", "an_gn", False, 44.9, 40.2),
    Row("resnet101_bn", "none", True, 44.4, 38.2),
    Row("resnet101_an", "none", True, 45.8, 39.6),
    Row("aognet_40m_bn", "none", True, 45.6, 39.3),
    Row("aognet_40m_an", "none", True, 46.5, 40.0),
    # Not in the paper.
    Row("densenet121_bn"),
    Row("densenet121_an"),
    Row("densenet121_an", "an_gn"),
    Row("mobilenetv2_bn"),
    Row("mobilenetv2_an"),
    Row("mobilenetv2_an", "an_gn"),
)
_BY_NAME = {row.name: row for row in TABLE}
COCO = {
    "an_maskrcnn_coco": _BY_NAME["maskrcnn_resnet50_an_an_gn_coco"],
    "an_cascadercnn_coco": _BY_NAME["cascadercnn_resnet101_an_coco"],
    **_BY_NAME,
}
SCENES = "an_maskrcnn_scenes"  # for what `train.detection.scenes` makes
EXPERIMENTS = {**COCO, SCENES: Row("resnet14_w16_an", "an_gn")}
COLUMNS = ("experiment", "backbone", "box head", "published box AP", "mask AP")


def listing() -> list[tuple[str, ...]]:
    """Returns a row for each experiment, with the columns `COLUMNS`."""
    return [
        (
            name,
            row.network,
            row.heads,
            f"{row.box_ap:g}" if row.box_ap else "no row",
            f"{row.mask_ap:g}" if row.mask_ap else "",
        )
        for name, row in EXPERIMENTS.items()
    ]
