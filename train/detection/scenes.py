"""python -m train.detection.scenes: scenes in COCO's format, made of real pixels.

    python -m train.detection.scenes --out=scenes
    python -m train.detection.scenes --recipe=fashion_mnist_resnet20_an \\
        --data=idx:DIR --classes='Trouser,Sandal,Sneaker,Bag,Ankle boot' --out=scenes

Items of a data set of gray images on black (default: handwritten digits) are scaled,
rotated, coloured and pasted, one over the other, onto photographs that scikit-learn and
scikit-image contain. Training scenes show training items, validation scenes show test
items on other photographs. Masks are exact: those pixels of an item that no later one
covers, run-length encoded.

    OUT/train2017/000001.jpg ...   OUT/annotations/instances_train2017.json
    OUT/val2017/000001.jpg ...     OUT/annotations/instances_val2017.json
"""

import dataclasses
import json
import pathlib

import numpy as np
from absl import flags
from PIL import Image

from train import cli, config, files, paths, recipes

# Split: split of the items, photographs. Names of functions in `skimage.data`, and of
# files for `sklearn.datasets.load_sample_image`.
SPLITS = {
    "train2017": (
        "train",
        (
            *("china.jpg", "astronaut", "chelsea", "retina", "immunohistochemistry"),
            *("camera", "coins", "brick", "grass", "gravel", "moon", "cell"),
        ),
    ),
    "val2017": ("test", ("flower.jpg", "coffee", "rocket", "hubble_deep_field")),
}
LIGHT = (0.3, 0.9)  # factors of red, green and blue of the photographs
LEAST_PART = 0.25  # of a photograph, relative to the scene; it is enlarged
INK = 24  # pixels of an item are those above
SIDES = (0.25, 0.5)  # of an item, relative to the scene
DEGREES = 30  # of rotation, to both sides
COLOURS = (0.5, 1)  # factors of red, green and blue
ITEMS = (2, 4)  # in a scene
LEAST = 60 / 128**2  # visible part of a scene below which an item is not annotated
SMALLEST, LARGEST = 32, 300  # sides of scenes; the lowest photograph has 300 pixels
QUALITY = 95  # of JPEG


@dataclasses.dataclass(frozen=True)
class Items:
    """Gray images (N, H, W), uint8, bright on black, and their classes, 0 to C - 1."""

    images: np.ndarray
    labels: np.ndarray


def define_flags():
    flags.DEFINE_string("recipe", "digits", "Recipe that names the items' data set.")
    flags.DEFINE_string("data", None, f"Replaces the data set: {config.DATA_SETS}.")
    paths.DEFINE_data_dir()
    flags.DEFINE_list("classes", None, "Names of the classes used; default: all.")
    paths.DEFINE_path("out", "Directory to be created.", paths.literal)
    flags.DEFINE_integer("train", 1200, "Number of training scenes.", 1, 999_999)
    flags.DEFINE_integer("val", 100, "Number of validation scenes.", 1, 999_999)
    flags.DEFINE_integer("side", 128, "Width and height.", SMALLEST, LARGEST)
    flags.DEFINE_integer("seed", 0, "Seed of what is drawn.", 0, 2**31 - 1)


def main(arguments):
    cli.no_arguments(arguments)
    cli.require("out")
    values = flags.FLAGS
    settings = recipes.create_recipe(values.recipe).data
    if values.data is not None:
        settings = dataclasses.replace(settings, name=values.data)
    out = pathlib.Path(values.out)
    if out.exists():
        raise cli.UsageError(f"Expected --out to be new. Received: {out}, which is.")

    with cli.imports():  # of TensorFlow: errors above are reported at once
        from train.input import builders

    builder = builders.create_builder(settings, values.data_dir)
    names, items = read_items(builder, values.classes)
    counts = dict(zip(SPLITS, (values.train, values.val), strict=True))
    for number, (split, (of_items, photographs)) in enumerate(SPLITS.items()):
        write(
            out,
            split,
            names,
            items[of_items],
            [_photograph(name) for name in photographs],
            count=counts[split],
            side=values.side,
            random=np.random.default_rng((values.seed, number)),
        )


def write(out, split, names, items, photographs, count, side, random) -> None:
    """Writes the scenes of a split, and last its annotations."""
    (out / split).mkdir(parents=True)
    (out / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        scene, seen = draw(random, items, photographs, side)
        name = f"{number:06d}.jpg"
        Image.fromarray(scene).save(out / split / name, quality=QUALITY)
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        for label, mask in seen:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    **_annotation(mask),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    path = out / "annotations" / f"instances_{split}.json"
    with files.replaced(path) as file:
        coco = {"images": images, "annotations": annotations, "categories": categories}
        json.dump(coco, file)
    print(f"{split}  {count} scenes, {len(annotations)} items of {len(names)} classes")


def draw(random, items: Items, photographs, side: int):
    """Draws a scene.

    Returns:
        The image (side, side, 3), uint8, and for each item that can be seen its class
        and its mask (side, side), 0 or 1.
    """
    photograph = photographs[random.integers(len(photographs))]
    scene = _cropped(random, photograph, side) * random.uniform(*LIGHT, size=3)
    owner = np.zeros((side, side), int)
    chosen = random.integers(len(items.images), size=random.integers(*ITEMS) + 1)
    for number, index in enumerate(chosen, start=1):
        item = _transformed(random, items.images[index], side)
        top, left = (random.integers(side - n + 1) for n in item.shape)
        place = slice(top, top + item.shape[0]), slice(left, left + item.shape[1])
        ink = item > INK
        scene[place][ink] = item[ink][:, None] * random.uniform(*COLOURS, size=3)
        owner[place][ink] = number
    masks = [(owner == number).astype(np.uint8) for number in range(1, len(chosen) + 1)]
    seen = [
        (int(items.labels[index]), mask)
        for index, mask in zip(chosen, masks, strict=True)
        if mask.mean() >= LEAST
    ]
    return scene.astype(np.uint8), seen


def _cropped(random, photograph, side):
    """A random square of the photograph, or its mirror, in `side` pixels."""
    least, largest = LEAST_PART * side, min(photograph.shape[:2])
    size = round(least * (largest / least) ** random.random())
    top, left = (random.integers(n - size + 1) for n in photograph.shape[:2])
    part = Image.fromarray(photograph[top : top + size, left : left + size])
    image = np.array(part.resize((side, side), Image.Resampling.BILINEAR))
    return image[:, :: random.choice((-1, 1))]


def _transformed(random, item, side):
    size = round(side * random.uniform(*SIDES))
    image = Image.fromarray(item).resize((size, size), Image.Resampling.BILINEAR)
    angle = random.uniform(-DEGREES, DEGREES)
    return np.array(image.rotate(angle, Image.Resampling.BILINEAR, expand=True))


def _annotation(mask):
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": [*mask.shape], "counts": encoded["counts"].decode()},
    }


def _photograph(name):
    import skimage.color
    import skimage.data
    import sklearn.datasets

    if name.endswith(".jpg"):
        return sklearn.datasets.load_sample_image(name)
    photograph = getattr(skimage.data, name)()
    return skimage.color.gray2rgb(photograph) if photograph.ndim == 2 else photograph


def read_items(builder, classes):
    """Returns the names of the classes, and the items of each split."""
    import tensorflow_datasets as tfds

    shape = builder.info.features["image"].shape
    if shape[-1] != 1 or None in shape:
        raise cli.RunError(
            "Expected gray images of one size, bright on black. "
            f"Received: images of {shape} in {builder.name}."
        )
    known = builder.info.features["label"].names
    names = classes or known
    if {*names} - {*known} or len({*names}) < len(names):
        raise cli.UsageError(
            "Expected --classes to be names of classes, each once: "
            f"{', '.join(known)}. Received: {', '.join(names)}."
        )
    labels = np.full(len(known), -1)
    labels[[known.index(name) for name in names]] = range(len(names))
    items = {}
    for split, _ in SPLITS.values():
        arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        new = labels[arrays["label"]]
        items[split] = Items(arrays["image"][new >= 0, ..., 0], new[new >= 0])
    return names, items


if __name__ == "__main__":
    cli.run(main, define_flags)
