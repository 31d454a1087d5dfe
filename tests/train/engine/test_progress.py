"""The progress line of a run and its metrics.csv."""

import io

import pytest

from train.cli import RunError
from train.engine import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_show_step_epoch_loss_accuracy_speed_and_remaining_time():
    stream = io.StringIO()
    shown = progress.Progress(0, 100, 32, 40.0, stream)
    shown.report(50, 0.5, 0.25)
    assert stream.getvalue().startswith(
        "step 50/100  epoch 1.2/2.5  loss 0.5000  accuracy 0.2500  "
    )
    assert "images/s" in stream.getvalue() and stream.getvalue().endswith(" left\n")


def test_terminal_gets_a_live_bar():
    stream = Terminal()
    shown = progress.Progress(0, 100, 32, 40.0, stream)
    shown.report(50, 0.5, 0.25)
    shown.write("a line")
    shown.close()
    assert "50/100" in stream.getvalue() and "accuracy 0.2500" in stream.getvalue()
    assert "a line\n" in stream.getvalue()


def test_speed_excludes_the_first_loop():
    shown = progress.Progress(0, 100, 32, 40.0, io.StringIO())
    shown.report(10, 0.5, 0.25)
    assert shown.images_per_second is None
    shown.report(20, 0.5, 0.25)
    assert shown.images_per_second > 0


def test_damaged_metrics_file_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss,top1,top5,learning_rate\nten,train,1,,,\n")
    with pytest.raises(RunError, match="metrics.csv is damaged.*ten,train"):
        progress.MetricsFile(path, 0, 0, 8.0)


def test_metrics_file_drops_what_a_killed_run_will_write_again(tmp_path):
    path = tmp_path / "metrics.csv"
    file = progress.MetricsFile(path, 0, 0, 8.0)
    for step in (10, 20, 30):
        file.append(step, "train", {"loss": 0.5, "top1": 0.25, "weight_norm": 1.0})
        file.append(step, "validation", {"loss": 0.25})
    with path.open("a") as cut:
        cut.write("40,tra")
    file = progress.MetricsFile(path, 20, 10, 8.0)
    file.append(20, "validation", {"loss": 1.0, "top5": 1.0})
    assert path.read_text().splitlines() == [
        "step,epoch,split,loss,top1,top5,learning_rate",
        "10,1.25,train,0.5,0.25,,",
        "10,1.25,validation,0.25,,,",
        "20,2.5,train,0.5,0.25,,",
        "20,2.5,validation,1,,1,",
    ]


def test_metrics_file_of_an_older_version_gets_epochs(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,split,loss,top1,top5,learning_rate\n10,train,0.5,0.25,,0.1\n")
    progress.MetricsFile(path, 10, 0, 8.0)
    assert path.read_text().splitlines() == [
        "step,epoch,split,loss,top1,top5,learning_rate",
        "10,1.25,train,0.5,0.25,,0.1",
    ]


@pytest.mark.parametrize("row", ["10,train,0.5,0.25,,0.1,7", "10,test,0.5,0.25,,"])
def test_metrics_file_with_other_columns_or_splits_is_named(tmp_path, row):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,split,loss,top1,top5,learning_rate\n{row}\n")
    with pytest.raises(RunError, match="metrics.csv is damaged. Expected rows"):
        progress.MetricsFile(path, 10, 0, 8.0)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\n" + b"a" * 200_000])
def test_metrics_file_that_is_not_a_table_is_named(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(RunError, match="metrics.csv is damaged. Expected rows"):
        progress.MetricsFile(path, 0, 0, 8.0)
