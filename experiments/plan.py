"""The runs of plan.md, as tables."""

import collections
import itertools

import numpy as np

from experiments import images

# Of the 15 of ImageNet-C. Motion blur, snow and frost need ImageMagick or files to
# download; glass blur takes half a second for an image.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur"),
    *("fog", "brightness", "contrast"),
    *("elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
SETTINGS = ((0.1, 0.9), (0.2, 0.9), (0.4, 0.9), (0.2, 0.99))  # rate, norm momentum
TUNING, RUN, CHOICE = "tuning", "run", "choice"
EPOCHS = {TUNING: 5, RUN: 10, CHOICE: 10}
SEEDS = {TUNING: (1000, 1001), RUN: range(10), CHOICE: range(5)}
CONTROLS = ("constant", "se", "instance")
# Stage, network, variants; the earlier ones come first if time is short.
PLAN = (
    (RUN, "resnet20", ("bn", "an")),
    (RUN, "resnet29", ("bn", "an")),
    (RUN, "mobilenetv2", ("bn", "an")),
    (RUN, "resnet20", CONTROLS),
    (RUN, "resnet29", CONTROLS),
    (RUN, "resnet20", ("an_mean", "an_mean_plus_max")),
    (CHOICE, "resnet20", ("an_k2", "an_k20", "an_all", "an_no_decay", "an_gain_1")),
)
FEW = tuple(itertools.product((10, 50, 100), ("all", "norms"), (0, 1)))
FEW_LABELS = {(n, v) for n in ("resnet20", "resnet29") for v in ("bn", "an")}

KEY = ("stage", "network", "variant", "seed", "rate", "momentum")
COLUMNS = (
    *KEY,
    *("epochs", "parameters", "validation_top1", "top1", "loss", "ece"),
    *(f"{name}_{level}" for name in CORRUPTIONS for level in SEVERITIES),
    *images.FORMULAS,
    *images.OTHERS,
    *(f"digits_{count}_{trained}_{draw}" for count, trained, draw in FEW),
    *("seconds", "device", "jax", "keras", "commit", "date"),
)

Job = collections.namedtuple("Job", KEY)


def tuning_jobs():
    """Each network and variant that gets a setting of its own, with each setting."""
    for stage, network, variants in PLAN:
        for variant, setting, seed in itertools.product(
            variants, SETTINGS, SEEDS[TUNING]
        ):
            if stage == RUN and tuned_as(variant) == variant:
                yield Job(TUNING, network, variant, seed, *setting)


def tuned_as(variant):
    return "an" if variant.startswith("an_") else variant


def jobs(rows):
    """All runs after the tuning, with the settings that are best in its rows."""
    scores = collections.defaultdict(list)
    for row in rows:
        if row["stage"] == TUNING:
            key = row["network"], row["variant"]
            setting = float(row["rate"]), float(row["momentum"])
            scores[key, setting].append(float(row["validation_top1"]))
    for stage, network, variants in PLAN:
        for seed, variant in itertools.product(SEEDS[stage], variants):
            key = network, tuned_as(variant)
            if all(scores[key, setting] for setting in SETTINGS):
                best = max(SETTINGS, key=lambda setting: np.mean(scores[key, setting]))
                yield Job(stage, network, variant, seed, *best)


def key(row):
    return tuple(str(row[name]) for name in KEY)
