"""Flags that name a network of the zoo and its weights, instead of a run."""

import pathlib

from absl import flags

from train import config, paths
from train.cli import UsageError
from train.export import image_classifier
from train.input.builders import checks

flags.disclaim_key_flags()  # they belong to the command that defines them


def DEFINE_network() -> None:
    """Defines --model, --weights, --options and --labels."""
    flags.DEFINE_string("model", None, "Network of the zoo, instead of a run.")
    paths.DEFINE_path("weights", "Weights of --model: a .weights.h5 file or a tag.")
    flags.DEFINE_string(
        "options", "{}", "Arguments of --model: {'input_shape': (64, 64, 3)}."
    )
    paths.DEFINE_path("labels", "File with the class names of --model, one per line.")


def classifier(version: int = 1) -> image_classifier.ImageClassifier:
    """Returns the network that the flags name.

    Raises:
        UsageError, RunError: As `image_classifier.of_network`.
    """
    values = flags.FLAGS
    return image_classifier.of_network(
        values.model,
        values.weights,
        _options(values.options),
        read_labels(values.labels),
        version,
    )


def _options(text):
    try:
        options = config.literal(text)
    except ValueError as error:
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.") from error
    if not isinstance(options, dict) or not all(isinstance(k, str) for k in options):
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.")
    return options


def read_labels(path: str | None) -> tuple[str, ...]:
    """Reads the names in a file, one per line; without a file, there are none.

    Raises:
        UsageError: If a line cannot be a name, or the file is not UTF-8.
        RunError: If the file is a pipe or a device.
    """
    if path is None:
        return ()
    paths.require_regular(path)
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Expected UTF-8 in --labels={path}. Received: {error}."
        ) from error
    names = [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]
    if odd := checks.unusable_names(names):
        raise UsageError(
            f"Expected a different name on each line of --labels={path}: "
            f"{checks.USABLE_NAMES}. Received: {ascii(odd[0])}."
        )
    return tuple(names)
