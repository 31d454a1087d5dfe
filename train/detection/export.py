"""python -m train.detection.export: a trained detector as a SavedModel.

    python -m train.detection.export --model_dir=runs/detection/model

exports the last checkpoint to `runs/detection/model/export/STEP`, for TensorFlow
Serving or any program that has TensorFlow. The export is loaded in a process without
Keras and without this package, and compared with the model, before it is published.
`--backbone=FILE.weights.h5` writes only the weights of the backbone, for
`model_zoo.create_model(NAME, weights=FILE, include_top=False)`.
"""

import pathlib

from absl import flags

from train import cli, files, paths


def define_flags():
    paths.DEFINE_path("model_dir", "Directory of the run.", paths.literal)
    paths.DEFINE_path(
        "out", "Directory of the versions; default: export/ of the run.", paths.literal
    )
    paths.DEFINE_path(
        "backbone", "File for the weights of the backbone, .weights.h5.", paths.output
    )


def main(arguments):
    cli.no_arguments(arguments)
    cli.require("model_dir")
    model_dir = pathlib.Path(flags.FLAGS.model_dir)
    out = pathlib.Path(flags.FLAGS.out or model_dir / "export")
    if not (model_dir / "params.yaml").is_file():
        raise cli.UsageError(
            f"Expected the directory of a run in --model_dir. Received: {model_dir}, "
            "which has no params.yaml."
        )
    backbone = flags.FLAGS.backbone and pathlib.Path(flags.FLAGS.backbone)
    if backbone and not backbone.name.endswith(".weights.h5"):
        raise cli.UsageError(
            f"Expected --backbone to end with .weights.h5. Received: {backbone}."
        )
    if backbone and flags.FLAGS.out:
        raise cli.UsageError(
            "Expected --backbone, which names a file, or --out. Received: both."
        )
    with cli.imports():
        from train.detection import run, serving

    if not backbone:
        files.require_new(out / str(run.last_checkpoint(model_dir)[1]))
    module, step = serving.of_run(model_dir)
    if backbone:
        serving.save_backbone(module, backbone)
        print(f"backbone {backbone}")
    else:
        version, compared = serving.export(module, step, out)
        print(f"checked  {compared}")
        print(f"export   SavedModel in {version}")


if __name__ == "__main__":
    cli.run(main, define_flags)
