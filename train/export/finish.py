"""Exports and checks the best weights at the end of a run."""

import sys

from train import cli
from train.engine.run import Run
from train.export import image_classifier, saved_model, write


def export_best(run: Run, results: dict) -> None:
    """Exports the best weights of a run, unless already done, and checks the export.

    Only the first worker exports; `Run.wait_for_chief` makes the others wait.

    Args:
        run: The run, trained and tested.
        results: Results of its test.

    Raises:
        RunError: If the export does not reproduce the accuracy.
        Preempted: If this process received SIGTERM.
    """
    if not run.is_chief:
        return
    version = run.workdir / "export" / str(results["step"])
    if version.exists():
        saved_model.require_results(version, results)
        _serve_check(run, version, f" {saved_model.AGAIN}")
    else:
        print("export   writing and checking a SavedModel", flush=True)
        classifier = image_classifier.of_run(run.workdir)
        write.export(
            classifier, version.parent, check=lambda aside: _serve_check(run, aside)
        )
    print(f"export   SavedModel in {version}", flush=True)


def _serve_check(run, version, advice=""):
    data_flag = f"--data={run.recipe.data.name}"  # its current location
    checked = [sys.executable, "-m", "train.serve_check", data_flag]
    if run.data_dir:
        checked.append(f"--data_dir={run.data_dir}")
    checked += ["--", str(version)]  # its name may start with -
    if run.stop_signal.call(checked):
        raise cli.RunError(f"The serve check of {version} failed.{advice}")
