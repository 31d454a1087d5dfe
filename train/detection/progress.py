"""What a run prints while it trains; its metrics.csv and results.json."""

import csv
import json
import math
import sys
import time

import tensorflow as tf

from train import files
from train.cli import RunError
from train.engine.progress import duration

LOSSES = ("rpn_score", "rpn_box", "frcnn_cls", "frcnn_box", "mask")
SHOWN = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75")
COLUMNS = ("step", "split", "metric", "value")


class Progress:
    """Prints a line for each loop and evaluation, and writes them to files.

    Args:
        steps: Step at which the run ends.
        model_dir: Directory of the run.
        step: Step from which the run starts. Later rows of metrics.csv are dropped.
        is_chief: Whether this process prints and writes.
    """

    def __init__(self, steps, model_dir, step, is_chief):
        self._steps = steps
        self._results = model_dir / "results.json"
        self._metrics = model_dir / "metrics.csv"
        self._step, self._is_chief = step, is_chief
        self._stream = sys.stdout  # orbit's output goes elsewhere
        self._clock = self._trainer = None
        if not is_chief:
            return
        rows = []
        if self._metrics.exists():
            try:
                with self._metrics.open(newline="") as file:
                    rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)]
            except (UnicodeDecodeError, csv.Error) as error:
                raise RunError(f"{self._metrics} is damaged: {error}.") from error
            rows = [row for row in rows if row[0].isdecimal()]
        with files.replaced(self._metrics, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(row for row in rows if int(row[0]) <= step)

    def begin(self, trainer) -> None:
        """Sets the trainer, and prints what is trained."""
        self._trainer, self._clock = trainer, time.perf_counter()
        if not self._is_chief:
            print("worker; the first one reports", file=self._stream, flush=True)
        size = sum(v.shape.num_elements() for v in trainer.model.trainable_variables)
        self._print(f"model    {size:,} parameters are trained")
        if trainer.task.loaded:
            self._print(f"backbone {trainer.task.loaded}")
        self._print(f"steps    {self._step} of {self._steps} done")

    def trained(self, output) -> None:
        """Reports a loop of training.

        Raises:
            RunError: If the loss is not finite.
        """
        # The learning rate of some optimizers is a variable, of each replica.
        values = {
            name: float(tf.convert_to_tensor(value)) for name, value in output.items()
        }
        step, now = int(self._trainer.global_step.numpy()), time.perf_counter()
        if not all(map(math.isfinite, values.values())):
            raise RunError(
                f"The loss is not finite in steps {self._step + 1} to {step}. Expected "
                f"finite numbers; a lower learning rate may help. Received: {values}."
            )
        rate = (step - self._step) / (now - self._clock)
        parts = "  ".join(f"{name} {values[f'{name}_loss']:.3f}" for name in LOSSES)
        left = duration((self._steps - step) / rate)
        self._print(
            f"step {step}/{self._steps}  loss {values['total_loss']:.3f}  {parts}  "
            f"{rate:.2f} steps/s  {left} left"
        )
        self._append(step, "train", values)
        self._step, self._clock = step, now

    def evaluated(self, output) -> None:
        """Reports an evaluation."""
        values = {name: float(value) for name, value in output.items()}
        step = int(self._trainer.global_step.numpy())
        parts = (f"{name.replace('_', ' ')} {values[name]:.4f}" for name in SHOWN)
        self._print(f"step {step}/{self._steps}  validation  {'  '.join(parts)}")
        self._append(step, "validation", values)
        if self._is_chief:
            with files.replaced(self._results) as file:
                json.dump({"step": step, **values}, file, indent=2)
        self._clock = time.perf_counter()

    def _append(self, step, split, values):
        if self._is_chief:
            with self._metrics.open("a", newline="") as file:
                csv.writer(file).writerows(
                    (step, split, name, f"{value:.7g}")
                    for name, value in values.items()
                )

    def _print(self, line):
        if self._is_chief:
            print(line, file=self._stream, flush=True)
