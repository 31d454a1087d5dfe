"""The progress line that a run shows while it trains, and its metrics.csv."""

import csv
import pathlib
import shutil
import sys
import time

import tqdm

from train import files, paths
from train.cli import RunError

COLUMNS = ("step", "epoch", "split", "loss", "top1", "top5", "learning_rate")


class Progress:
    """A live bar on a terminal, plain lines otherwise.

    Args:
        start: Step from which the run starts.
        stop: Step at which the run ends.
        batch_size: Images per step.
        steps_per_epoch: Steps per epoch.
        stream: Stream to write to. `None` selects stdout.
        quiet: Whether to print nothing and only measure the speed.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        batch_size: int,
        steps_per_epoch: float,
        stream=None,
        quiet: bool = False,
    ):
        self._quiet = quiet
        self._stream = stream or sys.stdout
        self._stop, self._batch_size = stop, batch_size
        self._steps_per_epoch = steps_per_epoch
        self.step, self._clock = start, time.perf_counter()
        self._rates = []
        self._bar = None
        if not quiet and self._stream.isatty() and shutil.get_terminal_size().columns:
            self._bar = tqdm.tqdm(
                total=stop, initial=start, file=self._stream, unit="step"
            )

    @property
    def images_per_second(self) -> float | None:
        """Median over the loops so far, except the first, in which graphs are built."""
        rates = sorted(self._rates[1:])
        return rates[len(rates) // 2] if rates else None

    def resume_clock(self) -> None:
        """Excludes the time since the last report from the next one."""
        self._clock = time.perf_counter()

    def report(self, step: int, loss: float, top1: float) -> None:
        """Shows one line about the steps since the last report."""
        now = time.perf_counter()
        rate = (step - self.step) * self._batch_size / (now - self._clock)
        self._rates.append(rate)
        left = (self._stop - step) * self._batch_size / rate
        epoch, epochs = (n / self._steps_per_epoch for n in (step, self._stop))
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"epoch {epoch:.1f}/{epochs:.1f}, loss {loss:.4f}, "
                f"accuracy {top1:.4f}, {rate:.0f} images/s",
                refresh=False,
            )
            self._bar.update(step - self.step)
        else:
            self.write(
                f"step {step}/{self._stop}  epoch {epoch:.1f}/{epochs:.1f}  "
                f"loss {loss:.4f}  accuracy {top1:.4f}  {rate:.0f} images/s  "
                f"{duration(left)} left"
            )
        self.step, self._clock = step, now

    def write(self, line: str) -> None:
        """Writes a separate line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class MetricsFile:
    """Writes metrics.csv. It contains no times, so that equal runs write equal files.

    Args:
        path: Path of the file. `None` writes no file. Rows that the run will write
            again, and a row that a crash cut short, are dropped.
        step: The step that the run starts from.
        evaluated: The step of its last evaluation.
        steps_per_epoch: Steps per epoch.
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        step: int,
        evaluated: int,
        steps_per_epoch: float,
    ):
        self._path, self._steps_per_epoch = path, steps_per_epoch
        if path is None:
            return
        rows = self._rows_until({"train": step, "validation": evaluated})
        with files.replaced(path, newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def _rows_until(self, last):
        paths.require_regular(self._path)
        if not self._path.exists():
            return []
        try:
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise RunError(
                f"{self._path} is damaged. Expected rows of {', '.join(COLUMNS)}. "
                f"Received: {error}."
            ) from error
        whole = [row for row in rows if None not in row.values()]
        for row in whole:
            step, split = row.get("step", ""), row.get("split")
            if not step.isdecimal() or split not in last or row.keys() - {*COLUMNS}:
                raise RunError(
                    f"{self._path} is damaged. Expected rows of {', '.join(COLUMNS)}. "
                    f"Received: {','.join(map(str, row.values()))}."
                )
            row["epoch"] = self._epoch(int(step))  # older files have none
        return [row for row in whole if int(row["step"]) <= last[row["split"]]]

    def append(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Appends one row; missing metrics stay empty, other ones are left out."""
        if self._path is None:
            return
        values = {name: f"{value:.7g}" for name, value in metrics.items()}
        values |= {"step": step, "epoch": self._epoch(step), "split": split}
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(values)

    def _epoch(self, step):
        return f"{step / self._steps_per_epoch:.7g}"
