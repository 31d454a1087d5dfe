"""python -m train.predict: prints class names and scores for images.

They are computed by the newest export of a run.

python -m train.predict runs/digits image.png...
"""

import pathlib

from train import cli, paths
from train.export import predictions, runtimes


def define_flags():
    """Defines no flags."""


def main(arguments):
    if len(arguments) < 2:
        raise cli.UsageError(
            "Expected a run and at least one image. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    run, *images = arguments
    workdir = pathlib.Path(paths.literal(run, "RUN"))
    contents = [predictions.read(image) for image in images]
    model = predictions.load(runtimes.newest_export(workdir))
    for image, content in zip(images, contents, strict=True):
        pairs = predictions.predict(model, image, content)
        text = "  ".join(f"{name} {score:.4f}" for name, score in pairs)
        print(f"{image}  {text}")


if __name__ == "__main__":
    cli.run(main, define_flags)
