"""The page about runs."""

import base64
import dataclasses
import html.parser
import pathlib
import re

import numpy as np
import pytest

from train import recipes
from train.engine import run_directory
from train.study import analysis, groups, page

EVIL = "<script>alert('&')</script>"


def a_run(seed, model, top1):
    recipe = recipes.create_recipe("digits")
    recipe = dataclasses.replace(
        recipe,
        seed=seed,
        model=dataclasses.replace(recipe.model, name=model),
        data=dataclasses.replace(recipe.data, name=f"folder:/tmp/{EVIL}"),
    )
    spec = run_directory.RunSpec(
        recipe, 1, (8, 8, 1), (EVIL, "$x_$", "猫"), {"test": 1000}, "a"
    )
    results = {
        **{"top1": top1, "loss": 1.0, "parameters": 12345, "step": 9},
        "sha256": "ab" * 32,
    }
    run = groups.FinishedRun(pathlib.Path(f"runs/{EVIL}{model}{seed}"), spec, results)
    points = np.array([[1.0, 2.0, 0.3], [2.0, 1.0, top1]])
    run.__dict__["curves"] = {"train": points, "validation": points}
    return run


def an_analysis(is_attentive, corrupted):
    attention = np.random.default_rng(0).random((30, 4))
    gate = analysis.gate(f"{EVIL}/norm", attention, np.arange(30) % 3, 3)
    return analysis.Analysis(
        np.arange(9).reshape(3, 3),
        0.125,
        {("fog", 1): 0.5, ("fog", 3): 0.25} if corrupted else {},
        [gate, gate] if is_attentive else [],
    )


def a_page(seeds=(0, 1, 2), corrupted=True, models=("resnet20_an", "resnet20_bn")):
    runs = [
        a_run(seed, model, 0.5 + seed / 10 + model.endswith("an") / 100)
        for model in models
        for seed in seeds
    ]
    analyses = {
        run: an_analysis("an" in run.spec.recipe.model.name, corrupted) for run in runs
    }
    return page.page(groups.group(runs), analyses, [f"{EVIL}-unfinished"])


class Reader(html.parser.HTMLParser):
    """Collects tags, their attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_is_one_file_and_names_stay_text():
    text = a_page()
    read = Reader(text)
    assert not read.open and not {"script", "link", "iframe"} & {
        t for t, _ in read.tags
    }
    assert any(f"{EVIL}-unfinished" in each for each in read.texts)
    sources = [of["src"] for tag, of in read.tags if tag == "img"]
    assert len(sources) >= 6
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        image = base64.b64decode(data).decode()
        assert "<script" not in image and image.count("</svg>") == 1
    assert not re.search(r"(src|href)=.?http", text)


def test_tables_have_means_intervals_and_paired_differences():
    cells = Reader(a_page()).texts
    # 0.51, 0.61, 0.71: standard deviation 0.1, t = 4.302653
    assert "0.6100 ± 0.2484" in cells and "0.6000 ± 0.2484" in cells
    assert "resnet20_an − resnet20_bn" in cells
    place = cells.index("resnet20_an − resnet20_bn")
    assert cells[place + 1 : place + 4] == ["3", "+1.00", "+1.00 to +1.00"]
    assert "0.3750 ± 0.0000" in cells  # fog, the mean of two severities


def test_one_seed_has_no_interval():
    cells = Reader(a_page(seeds=(0,))).texts
    assert "0.5100" in cells and not any(
        "±" in cell for cell in cells[:40] if "Mean" not in cell
    )
    place = cells.index("resnet20_an − resnet20_bn")
    assert cells[place + 1 : place + 3] == ["1", "+1.00"]


@pytest.mark.parametrize("models", [("resnet20_bn",), ("resnet20_an",)])
def test_page_of_one_group_has_no_differences(models):
    text = a_page(models=models, corrupted=False)
    assert "Paired differences" not in text
    assert "Not measured; report with --corruption=all." in text
    assert ("<h2>Attention</h2>" in text) == (models == ("resnet20_an",))


def test_equal_runs_give_equal_pages():
    assert a_page() == a_page()
