"""The end of a run: its best weights, exported and checked."""

import sys

from train import cli
from train.engine.run import Run
from train.export import image_classifier, saved_model, write


def export_best(run: Run, results: dict) -> None:
    """Exports the best weights of a run, unless that is done, and checks the export.

    The chief does; the other workers wait for it.

    Args:
        run: trained and tested.
        results: of its test.

    Raises:
        RunError: the export does not reproduce the accuracy.
        Preempted: the process was asked to stop (SIGTERM), or the first worker was
            before its export was done.
    """
    if run.is_chief:
        _export(run, results)
    run.wait_for_chief()


def _export(run, results):
    version = run.workdir / "export" / str(results["step"])
    if version.exists():
        saved_model.require_results(version, results)
        _serve_check(run, version, f" {saved_model.AGAIN}")
    else:
        network = image_classifier.of_run(run.workdir)
        write.export(
            network, version.parent, check=lambda aside: _serve_check(run, aside)
        )
    print(f"export   SavedModel in {version}", flush=True)
    print(f"curves   tensorboard --logdir {run.workdir}", flush=True)


def _serve_check(run, version, advice=""):
    data_set = f"--data={run.recipe.data.name}"  # where it lies now
    checked = [sys.executable, "-m", "train.serve_check", data_set]
    if run.data_dir:
        checked.append(f"--data_dir={run.data_dir}")
    checked += ["--", str(version)]  # its name may begin with -
    if run.stop_signal.call(checked):
        raise cli.RunError(f"The serve check of {version} failed.{advice}")
