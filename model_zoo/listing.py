"""The table of `python -m model_zoo list`, from tables that need no Keras."""

import fnmatch
from collections.abc import Iterator

from model_zoo.keras_applications import FAMILIES
from model_zoo.parameter_counts import COUNTS, VARIANTS
from model_zoo.published import published
from model_zoo.weight_sets import tags

FOOTER = (
    "published: top-1 on ImageNet, percent, as published in the authors' release",
    "paper: the same, as published for the paper's code",
    "The weights behind these figures are not included. imagenet: hosted by Keras",
)


def networks() -> dict[str, tuple[int, int]]:
    """Returns default input, in pixels, and trainable parameters of every network."""
    own = {
        f"{name}_{variant}": (pixels, count)
        for name, (pixels, *counts) in COUNTS.items()
        for variant, count in zip(VARIANTS, counts, strict=False)
    }
    converted = {
        f"applications.AN{name}": sizes
        for family in FAMILIES
        for name, sizes in family.networks.items()
    }
    return dict(sorted((own | converted).items()))


def lines(pattern: str = "*", pretrained: bool = False) -> Iterator[str]:
    """Yields the lines of the table, one for each network, and the footer.

    Args:
        pattern: Shell-style pattern of names.
        pretrained: Whether to list only networks whose weights are in the zoo.

    Raises:
        ValueError: If no network matches.
    """
    known = networks()
    names = [
        name for name in fnmatch.filter(known, pattern) if tags(name) or not pretrained
    ]
    if not names:
        kind = "network with weights in the zoo" if pretrained else "network"
        raise ValueError(f"No {kind} matches {pattern!r}.")
    width = max(map(len, names)) + 2
    row = f"{{:{width}}}{{:>12}}{{:>10}}{{:>11}}{{:>8}}  {{}}"
    yield row.format("network", "parameters", "input", "published", "paper", "weights")
    for name in names:
        pixels, parameters = known[name]
        results = published(name)
        top1, paper_top1 = results["top1"], results["paper_top1"]
        hosted = ["imagenet"] if name.startswith("applications.") else []
        yield row.format(
            name,
            f"{parameters:,}",
            f"{pixels}x{pixels}",
            "" if top1 is None else f"{top1:.1f}",
            "" if paper_top1 is None else f"{paper_top1:.2f}",
            ", ".join([*hosted, *tags(name)]),
        ).rstrip()
    yield from ("", *FOOTER)
