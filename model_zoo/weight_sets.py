"""Weights included in the zoo: tags, records and verified files, without Keras."""

import dataclasses
import hashlib
import pathlib

DIRECTORY = pathlib.Path(__file__).parent / "pretrained"


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """Weights included in the zoo, `NAME.TAG.weights.h5` in `model_zoo/pretrained`.

    Attributes:
        sha256: SHA-256 of the file, compared on every read.
        input_shape: (height, width, channels) of the images, in pixels.
        classes: Number of classes.
        class_names: Name of each class.
        mean, std: Mean and standard deviation of the pixels on a scale of 0 to 1, one
            for each channel.
        recipe: The command that trained the weights.
        metrics: What was measured, and on which images.
        licence: Licence of the weights and of the data they were trained on.
    """

    sha256: str
    input_shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str
    metrics: dict[str, float]
    licence: str


FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _fashion_mnist(kind: str, sha256: str, top1: float, loss: float) -> WeightSet:
    return WeightSet(
        sha256=sha256,
        input_shape=(28, 28, 1),
        classes=10,
        class_names=FASHION_MNIST,
        mean=(0.286,),
        std=(0.353,),
        recipe=(
            f"python -m train --recipe=fashion_mnist_resnet20_{kind} --data=idx:DIR "
            "--workdir=RUN --set=epochs=15 --set=optimizer.warmup_epochs=1 "
            "--set=data.shift=2"
        ),
        metrics={"test_top1": top1, "test_loss": loss, "test_images": 10_000},
        licence="weights: Apache-2.0; data: Fashion-MNIST, Zalando SE, MIT",
    )


TAGS = {
    ("resnet20_an", "fashion_mnist"): _fashion_mnist(
        "an",
        "b734358e4dd3d16be0897805c4b0a2ab7e9da778adcc5cf414bba6fdcf664530",
        top1=0.9338,
        loss=0.1837,
    ),
    ("resnet20_bn", "fashion_mnist"): _fashion_mnist(
        "bn",
        "fc86a5edaa50bb384d2aef0450d75588368b82077f9faf040231c8887a29e5da",
        top1=0.9351,
        loss=0.1773,
    ),
}


def tags(model_name: str) -> tuple[str, ...]:
    """Returns the tags of the weights that the zoo includes for this network."""
    return tuple(tag for name, tag in TAGS if name == model_name)


def weight_set(model_name: str, tag: str) -> WeightSet:
    """Returns the record of a tag.

    Raises:
        ValueError: If there is no such tag.
    """
    if (model_name, tag) not in TAGS:
        raise ValueError(
            f"{model_name} has weights with these tags: {tags(model_name) or 'none'}. "
            f"Received: {tag!r}."
        )
    return TAGS[model_name, tag]


def verified_file(model_name: str, tag: str) -> pathlib.Path:
    """Returns the file of a tag after checking its sha256.

    Raises:
        ValueError: If the file is missing or its sha256 differs.
    """
    path = DIRECTORY / f"{model_name}.{tag}.weights.h5"
    expected = weight_set(model_name, tag).sha256
    if not path.is_file():
        raise ValueError(
            f"The weights {model_name}.{tag} must be in {str(path)!r}. "
            "Received: no such file."
        )
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    if received != expected:
        raise ValueError(
            f"{str(path)!r} is damaged: its sha256 must be {expected}. "
            f"Received: {received}."
        )
    return path
