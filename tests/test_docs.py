"""The programs, commands, numbers and links in the README and in docs/ are correct."""

import ast
import collections
import csv
import dataclasses
import importlib
import re
import shlex
import statistics

import numpy as np
import pytest
from absl.flags import FLAGS
from conftest import ROOT

from train import config, fields, recipes
from train.study import groups

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PROGRAMS = {
    name: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, text in PAGES.items()
}
TRAINING = {
    name: [program for program in programs if ".fit(" in program]
    for name, programs in PROGRAMS.items()
}


def with_programs(programs):
    return [name for name in programs if programs[name]]


def run(name, programs):
    for program in programs:
        exec(compile(program, name, "exec"), {})


def rows(name):
    return list(csv.DictReader((ROOT / "results" / name).read_text().splitlines()))


def ratios(table, column="ratio", **which):
    return [
        float(row[column])
        for row in table
        if all(row[key] == value for key, value in which.items())
    ]


def commands(start):
    """Returns the command lines that start with these words, in all pages."""
    text = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = re.findall(rf"^{re.escape(start)}(?:[. ].*)?$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_pages_have_programs():
    assert sum(map(len, PROGRAMS.values())) == 10
    assert with_programs(TRAINING) == ["docs/convert.md"]


@pytest.mark.parametrize("name", with_programs(PROGRAMS))
def test_programs_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(name, [each for each in PROGRAMS[name] if each not in TRAINING[name]])


@pytest.mark.slow
@pytest.mark.parametrize("name", with_programs(TRAINING))
def test_training_programs_run(name):
    run(name, TRAINING[name])


def test_code_blocks_say_what_they_are():
    """Only ```python is run: other Python code is ```py, which readers see the same."""
    for name, text in PAGES.items():
        kinds = {*re.findall(r"^```(.*)$", text, re.MULTILINE)} - {""}
        assert kinds <= {"python", "py", "sh", "text"}, name
        assert text.count("```") % 2 == 0, name


def test_flags_exist():
    called = [arguments[2:] for arguments in commands("python -m train")]
    assert {name for name, *_ in called} >= {
        *("train", "train.benchmark", "train.checkpoint", "train.detection"),
        *("train.detection.export", "train.detection.predict"),
        *("train.detection.prepare", "train.detection.scenes", "train.evaluate"),
        *("train.export", "train.predict", "train.prepare", "train.report"),
        "train.serve_check",
    }
    for name, *arguments in called:
        is_package = name in ("train", "train.detection", "train.export")
        module = f"{name}.__main__" if is_package else name
        before = {*FLAGS}
        getattr(importlib.import_module(module), "define_flags", dict)()
        known = {*FLAGS} - before
        for flag in known:
            delattr(FLAGS, flag)
        given = re.findall(r"(?:^|\n)--(\w+)", "\n".join(arguments))
        assert {*given} <= known | {f"no{flag}" for flag in known}, arguments


def test_recipes_and_fields_exist():
    called = [line for line in commands("python -m train") if line[2] == "train"]
    assignments = 0
    for line in called:
        (name,) = re.findall(r"--recipe=(\w+)", " ".join(line))
        given = [each.removeprefix("--set=") for each in line if "--set=" in each]
        if name != "list":
            config.override(recipes.create_recipe(name), given)
        assignments += len(given)
    assert assignments


def test_commands_of_the_zoo_exist():
    from model_zoo.__main__ import _parser

    called = [arguments[3:] for arguments in commands("python -m model_zoo")]
    assert {name for name, *_ in called} == {"list", "info", "table", "convert"}
    for arguments in called:
        _parser().parse_args(arguments)


def test_examples_and_their_flags_exist():
    text = "\n".join(PAGES.values())
    called = re.findall(r"^python (examples/\w+\.py)(.*)$", text, re.MULTILINE)
    assert len(called) == 2
    for name, arguments in called:
        source = (ROOT / name).read_text()
        for flag in re.findall(r"--\w+", arguments):
            assert f'"{flag}"' in source, name


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    for name, text in PAGES.items():
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
            assert f"\n{target}:" in makefile, name


def test_links_lead_somewhere():
    """`make docs` checks those between pages; this also checks the README's."""
    for name, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s#]+)", text):
            if "://" not in link:
                assert ((ROOT / name).parent / link).exists(), f"{name}: {link}"


def test_every_page_is_in_the_navigation_and_in_the_readme():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for name in PAGES.keys() - {"README.md"}:
        assert name.removeprefix("docs/") in navigation, name
        assert name == "docs/index.md" or f"({name})" in PAGES["README.md"], name


def test_table_of_fields_is_complete():
    shown = {}
    for names, default in re.findall(
        r"^\| ((?:`[\w.]+`(?:, )?)+) \| (`[^`]*`|required) \|",
        PAGES["docs/training.md"].partition("## Every field")[2],
        re.MULTILINE,
    ):
        for name in re.findall(r"`([\w.]+)`", names):
            assert name not in shown
            shown[name] = (
                dataclasses.MISSING
                if default == "required"
                else ast.literal_eval(default.strip("`"))
            )
    assert shown == {name: default for name, _, default, _ in fields.fields()}


def test_table_of_recipes_matches_them():
    listed = {}
    for names, epochs, batch in re.findall(
        r"^\| (`[\w{},` ]+`) \| .* \| `\w+` \| (\d+) \| (\d+) \|$",
        PAGES["docs/training.md"],
        re.MULTILINE,
    ):
        listed |= dict.fromkeys(expanded(names), (float(epochs), int(batch)))
    created = {name: recipes.create_recipe(name) for name in recipes.RECIPES}
    assert listed == {
        name: (recipe.epochs, recipe.batch_size) for name, recipe in created.items()
    }


def expanded(names):
    """Expands `a_{1,2}`, as shells do, in a list of names."""
    waiting, done = re.findall(r"`([^`]+)`", names), []
    while waiting:
        name = waiting.pop()
        braces = re.search(r"\{([^}]*)\}", name)
        if braces is None:
            done.append(name)
        else:
            waiting += [
                name[: braces.start()] + each + name[braces.end() :]
                for each in braces[1].split(",")
            ]
    return done


def test_networks_exist():
    import model_zoo

    known = set(model_zoo.list_models())
    for page in ("README.md", "docs/networks.md"):
        shown = re.findall(
            r"^\| (`[\w{},*.` ]+_(?:\*|se)`) \|", PAGES[page], re.MULTILINE
        )
        names = {each for cell in shown for each in expanded(cell)}
        both = {name.replace("_*", end) for name in names for end in ("_an", "_bn")}
        assert both == {name for name in known if "." not in name}, page


def test_table_of_networks_matches_the_file():
    import model_zoo
    from model_zoo import network_table

    numbers = re.compile(r"[\d.]+")
    table = [
        {
            column: (ast.literal_eval(cell) if numbers.fullmatch(cell) else cell)
            if cell
            else None
            for column, cell in row.items()
        }
        for row in rows("zoo/networks.csv")
    ]
    assert [row["network"] for row in table] == model_zoo.list_models()
    for row in table:
        assert row["parameters"] == model_zoo.model_info(row["network"]).parameters
    ours = (row for row in table if "." not in row["network"])
    assert "\n".join(network_table.markdown(ours)) in PAGES["docs/networks.md"]


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_results_match_the_files(page):
    files = sorted((ROOT / "results").glob("*.csv"))
    results = [row for file in files for row in rows(file.name)]
    assert len(results) == 7
    for row in results:
        cells = (
            f"`{row['model']}` | {int(row['parameters']):,} | {float(row['top1']):.4f}"
        )
        assert cells in PAGES[page]


def test_quickstart_shows_the_result_of_the_file():
    result = rows("digits.csv")[0]
    top1, top5, loss = (float(result[name]) for name in ("top1", "top5", "loss"))
    assert (
        f"test     top-1 {top1:.4f}  top-5 {top5:.4f}  loss {loss:.4f}  "
        f"({result['images']} images, best checkpoint: step {result['step']})\n"
        f"export   SavedModel in runs/digits/export/{result['step']}\n"
    ) in PAGES["docs/quickstart.md"]


def test_serving_table_matches_the_file():
    text = PAGES["docs/export.md"]
    latency = {
        row["case"]: float(row["ratio"])
        for row in rows("serving/serve.csv")
        if (row["phase"], row["variant"], row["reference"]) == ("p50", "AN", "BN")
    }
    runtimes = ("saved_model", "litert", "onnx", "openvino")
    for network in {case.partition(",")[0] for case in latency}:
        cells = [
            f"{latency[f'{network}, {runtime}, batch {batch}']:.2f}"
            for batch in (1, 16)
            for runtime in runtimes
        ]
        assert f"| {network} | {' | '.join(cells)} |" in text
    largest = {}
    for row in rows("serving/consumers.csv"):
        difference = float(row["difference"])
        old = largest.setdefault(row["precision"], difference)
        largest[row["precision"]] = max(old, difference)
    text = text.replace("\n", " ")
    assert f"at most {largest['float32']:.1e}. In" in text
    assert f"at most {largest['mixed_bfloat16']:.1e} (" in text
    assert f"| {largest['float32']:.1e} of probability |" in PAGES["docs/results.md"]


def test_export_shows_the_lines_of_the_check():
    printed = (ROOT / "results/serving/serve_check.txt").read_text()
    shown = re.findall(r"^served .*$", PAGES["docs/export.md"], re.MULTILINE)
    assert shown and {*shown} <= {*printed.splitlines()}


def test_speed_tables_match_the_files():
    text = PAGES["docs/performance.md"]
    layer, network = rows("benchmark/layer.csv"), rows("benchmark/network.csv")
    for variant in {row["variant"] for row in layer}:
        training, inference = (
            statistics.geometric_mean(ratios(layer, variant=variant, phase=phase))
            for phase in ("training", "inference")
        )
        assert f" | {training:.2f} | {inference:.2f} |" in text
    columns = (
        ("AN", "training"),
        ("AN", "inference"),
        ("AN", "parameters"),
        ("AN", "peak memory"),
        ("Keras BN", "training"),
    )
    for case in {row["case"] for row in network}:
        cells = [case]
        for variant, phase in columns:
            (ratio,) = ratios(network, case=case, variant=variant, phase=phase)
            cells.append(f"{ratio:.2f}")
        assert f"| {' | '.join(cells)} |" in text
    added = [ratio - 1 for ratio in ratios(network, variant="AN", phase="parameters")]
    costs = f"adds {min(added):.0%} to {max(added):.0%}".replace("% to", " to")
    assert costs.replace("%", " %") in PAGES["docs/layer.md"].replace("\n", " ")


def test_gpu_table_matches_the_files():
    cells = {}
    for file in ("network_jax_bfloat16.csv", "network_torch_bfloat16.csv"):
        table = [row for row in rows(f"gpu/{file}") if row["variant"] == "AN"]
        for case in {row["case"] for row in table}:
            shown = cells.setdefault(case.partition(",")[0], [])
            for phase in ("training", "inference", "peak memory"):
                (ratio,) = ratios(table, case=case, phase=phase)
                shown.append(f"{ratio:.2f}")
                if phase == "training":
                    (ms,) = ratios(table, "value", case=case, phase=phase)
                    shown[-1] += f" ({ms:.3g} ms)"
    assert len(cells) == 3
    for network, shown in cells.items():
        assert f"| {network} | {' | '.join(shown)} |" in PAGES["docs/performance.md"]


def test_input_table_matches_the_file():
    for row in rows("benchmark/input.csv"):
        if row["variant"] == row["reference"]:
            continue
        ratio, low, high = (
            float(row[name]) for name in ("ratio", "ratio_min", "ratio_max")
        )
        cell = f"| {ratio:.2f} ({low:.2f}-{high:.2f}) |"
        assert cell in PAGES["docs/performance.md"], row["variant"]


def test_conversion_numbers_match_the_file():
    table = rows("conversion/applications.csv")
    seconds = {row["network"]: float(row["seconds"]) for row in table}
    differences = [float(row["largest_difference"]) for row in table]
    text = PAGES["docs/convert.md"].replace("\n", " ")
    assert f"All {len(table)} networks" in text
    slowest = max(seconds, key=seconds.get)
    assert f"of {slowest}, took {seconds[slowest]:.1f} s" in text
    assert f"ResNet152 took {seconds['ResNet152']:.1f} s" in text
    shown = f"{max(differences):.1e}".replace("e-0", "e-")
    assert f"up to {shown} of the standard" in text


def test_comparison_of_aognet_and_resnet_matches_its_file():
    table, text = rows("benchmark/aognet.csv"), PAGES["docs/performance.md"]
    columns = [
        (network, variant)
        for network in ("resnet50", "aognet_12m")
        for variant in ("BN", "AN")
    ]
    values = {}
    for row in table:
        network = row["case"].partition(",")[0]
        key = row["phase"], row["unit"]
        values.setdefault(key, {})[network, row["variant"]] = float(row["value"])
    for (phase, unit), of_phase in values.items():
        if phase != "parameters":
            cells = [f"{of_phase[column]:,.4g}" for column in columns]
            assert f"| {phase}, {unit} | {' | '.join(cells)} |" in text
    for phase in ("training", "inference"):
        (times,) = (each for key, each in values.items() if key[0] == phase)
        work = values["multiply-adds", "M"]
        ours, other = (
            times[network, "AN"] / work[network, "AN"]
            for network in ("aognet_12m", "resnet50")
        )
        assert f"{ours / other:.2f} times" in text


def test_scenes_match_the_file():
    found = {
        (row["step"], row["metric"]): float(row["value"])
        for row in rows("detection/scenes.csv")
        if row["split"] == "validation"
    }
    kinds = ("AP", "AP50", "AP75")
    steps = {step for step, _ in found}
    assert len(steps) == 6
    for step in steps:
        values = (found[step, f"{of}{kind}"] for of in ("", "mask_") for kind in kinds)
        cells = (f"{int(step):,}", *(f"{value:.3f}" for value in values))
        assert f"| {' | '.join(cells)} |" in PAGES["docs/detection.md"]


def test_transfer_matches_the_file():
    kinds = [f"{of}{kind}" for of in ("", "mask_") for kind in ("AP", "AP50", "AP75")]
    found = collections.defaultdict(list)
    for row in rows("detection/transfer.csv"):
        for kind in kinds:
            found[row["network"], row["start"], kind].append(float(row[kind]))
    assert len(found) == 4 * len(kinds) and {*map(len, found.values())} == {3}
    for network in ("BN", "AN"):
        for start in ("scratch", "classifier"):
            cells = (
                f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
                for values in (found[network, start, kind] for kind in kinds)
            )
            line = f"| {network} | {start} | {' | '.join(cells)} |"
            assert line in PAGES["docs/detection.md"]


def test_epoch_of_fit_matches_the_files():
    (trained,) = rows("fit/train.csv")
    shown = [f"| `python -m train` | {float(trained['top1']):.4f} |"]
    names = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
    fitted = rows("fit/fit.csv")
    assert [row["backend"] for row in fitted] == [*names]
    for row in fitted:
        label = f"| `examples/fit.py` on {names[row['backend']]}"
        shown.append(f"{label} | {float(row['top1']):.4f} | {float(row['loss']):.4f} |")
        assert abs(float(row["top1"]) - float(trained["top1"])) < 0.02
    for line in shown:
        assert line in PAGES["docs/training.md"]


def test_sweep_in_the_docs_is_that_of_its_file():
    table = rows("sweep/digits.csv")
    top1 = {(row["recipe"], row["seed"]): float(row["top1"]) for row in table}
    assert len(top1) == 6 and {row["status"] for row in table} == {"done"}
    page = PAGES["docs/sweeps.md"]
    for name in ("digits-seed0", "digits-seed2"):
        (value,) = {float(row["top1"]) for row in table if row["run"] == name}
        assert f"done     {name}  top-1 {value:.4f}  " in page
    points = np.array([100 * (top1["digits", s] - top1["digits_bn", s]) for s in "012"])
    mean, half = groups.interval(points)
    assert f"{mean - half:+.2f} to {mean + half:+.2f} points" in page
