"""What a run shows and records."""

import io

import pytest

from train.cli import RunError
from train.engine import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_hold_step_loss_accuracy_speed_and_time_left():
    stream = io.StringIO()
    shown = progress.Progress(0, 100, 32, stream)
    shown.report(50, 0.5, 0.25)
    assert stream.getvalue().startswith("step 50/100  loss 0.5000  accuracy 0.2500  ")
    assert "images/s" in stream.getvalue() and stream.getvalue().endswith(" left\n")


def test_terminal_gets_a_live_bar():
    stream = Terminal()
    shown = progress.Progress(0, 100, 32, stream)
    shown.report(50, 0.5, 0.25)
    shown.write("a line")
    shown.close()
    assert "50/100" in stream.getvalue() and "accuracy 0.2500" in stream.getvalue()
    assert "a line\n" in stream.getvalue()


def test_speed_leaves_the_first_loop_out():
    shown = progress.Progress(0, 100, 32, io.StringIO())
    shown.report(10, 0.5, 0.25)
    assert shown.images_per_second is None
    shown.report(20, 0.5, 0.25)
    assert shown.images_per_second > 0


def test_damaged_metrics_file_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss,top1,top5,learning_rate\nten,train,1,,,\n")
    with pytest.raises(RunError, match="metrics.csv is damaged.*ten,train"):
        progress.MetricsFile(path, 0, 0)


def test_metrics_file_drops_what_a_killed_run_will_write_again(tmp_path):
    path = tmp_path / "metrics.csv"
    file = progress.MetricsFile(path, 0, 0)
    for step in (10, 20, 30):
        file.append(step, "train", {"loss": 0.5, "top1": 0.25})
        file.append(step, "validation", {"loss": 0.25})
    with path.open("a") as cut:
        cut.write("40,tra")
    file = progress.MetricsFile(path, step=20, evaluated=10)
    file.append(20, "validation", {"loss": 1.0, "top5": 1.0})
    assert path.read_text().splitlines() == [
        "step,split,loss,top1,top5,learning_rate",
        "10,train,0.5,0.25,,",
        "10,validation,0.25,,,",
        "20,train,0.5,0.25,,",
        "20,validation,1,,1,",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\n" + b"a" * 200_000])
def test_metrics_file_that_is_no_table_is_named(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(RunError, match="metrics.csv is damaged. Expected rows"):
        progress.MetricsFile(path, 0, 0)
