"""The table of `python -m model_zoo table`."""

import csv

import pytest

import model_zoo
from model_zoo import network_table
from model_zoo.__main__ import main


@pytest.fixture(scope="module")
def table():
    return {row["network"]: row for row in network_table.rows("resnet8_*")}


def test_share_of_attention_is_the_difference_from_the_twin(table):
    an, bn = table["resnet8_an"], table["resnet8_bn"]
    added = an["parameters"] - bn["parameters"]
    share = an["an_parameters_percent"]
    assert share == pytest.approx(100 * added / an["parameters"], rel=0.05)
    assert an["million_multiply_adds"] == bn["million_multiply_adds"]
    more = an["million_multiply_adds_of_norms"] - bn["million_multiply_adds_of_norms"]
    assert more > 0 and bn["an_multiply_adds_percent"] == 0


def test_row_has_what_was_published():
    (row,) = network_table.rows("resnet50_an")
    assert (row["published_top1"], row["published_top5"]) == (78.4, 94.1)
    assert (row["paper_top1"], row["coco_box_ap"]) == (78.41, 40.8)
    assert (row["coco_box_ap_an_heads"], row["coco_mask_ap_an_heads"]) == (41.6, 37.4)
    assert row["published_million_multiply_adds"] == 4090
    assert row["our_imagenet_top1"] == "not measured"


def test_command_prints_markdown_and_writes_all_columns(capsys, tmp_path, table):
    file = tmp_path / "table.csv"
    assert main(["table", "resnet8_*", "--csv", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == list(network_table.markdown(table.values()))
    assert lines[2].startswith("| `resnet8_an` | 80,426 | 6.4 % | 12 M |")
    with file.open() as opened:
        written = list(csv.DictReader(opened))
    assert [row["network"] for row in written] == ["resnet8_an", "resnet8_bn"]
    assert list(written[0]) == list(table["resnet8_an"])


def test_unknown_pattern_is_reported(capsys):
    assert main(["table", "vgg*"]) == 2
    assert "No network matches 'vgg*'" in capsys.readouterr().err


def test_published_results_belong_to_registered_networks():
    names = set(model_zoo.list_models())
    published = network_table.published
    assert {*published.COCO, *published.LONGER} <= names
    assert {f"{name}_an" for name in published.MULTIPLY_ADDS} <= names
    assert published.multiply_adds("resnet50_bn") == 4090
    assert published.multiply_adds("resnet50_se") is None
