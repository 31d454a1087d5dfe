"""The benchmarks: fair variants, medians and ratios, and the files written."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import model_zoo
from an_keras import AttentiveNormalization
from benchmarks import layers, serving, summary, timing
from train import cli
from train.export import image_classifier, write


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "train.benchmark", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_variant_is_called_in_every_round():
    counts = {"a": 0, "b": 0}

    def call(name):
        counts[name] += 1

    times = timing.times({n: lambda n=n: call(n) for n in counts}, rounds=5)
    assert counts == dict.fromkeys("ab", timing.WARM_UP + 5)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 5, "b": 5}
    assert min(map(min, times.values())) > 0


def test_ratios_are_computed_within_a_process():
    def process(reference, other):
        common = {"case": "c", "phase": "training", "unit": "ms"}
        return [
            {**common, "variant": "Keras BN", "value": reference},
            {**common, "variant": "AN", "value": other},
        ]

    rows = summary.summarize("layer", [process(1, 2), process(10, 5), process(3, 3)])
    (row,) = (row for row in rows if row["variant"] == "AN")
    assert (row["ratio"], row["ratio_min"], row["ratio_max"]) == (1, 0.5, 2)
    assert row["value"] == 3 and row["unit"] == "ms"


def test_composite_equals_attentive_normalization():
    ours, composite = AttentiveNormalization(4), layers.Composite(4)
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (5, 6, 6, 8)).astype("float32")
    for layer in (ours, composite):
        layer.build(x.shape)
    composite.gamma.assign(ours.gamma)
    composite.beta.assign(ours.beta)
    composite.kernel.assign(ours.gate.kernel)
    for _ in range(2):
        a, b = (layer(x, training=True) for layer in (ours, composite))
        np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(ours(x), composite(x), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [],
            "Expected one of layer, network, passes, size, memory, input, scaling, "
            "startup, serve DIR.... Received: none",
        ),
        (["serve"], "Received: serve"),
        (["speed"], "Received: speed"),
        (["network", "--networks=resnet51"], "Received: resnet51"),
        (["layer", "--rounds=0"], "rounds"),
        (
            ["layer", "--backend=jax"],
            "--backend applies to network only. Received: layer",
        ),
        (["network", "--policy=int8"], "mixed_bfloat16"),
    ],
)
def test_usage_errors_exit_with_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == cli.USAGE
    assert words in done.stderr


@pytest.mark.parametrize(
    ("kind", "flags", "cases"),
    [
        pytest.param("layer", ["--batch=2"], 4, marks=pytest.mark.slow),
        pytest.param("passes", ["--batch=2"], 4, marks=pytest.mark.long),
        pytest.param("size", ["--batch=2"], 5, marks=pytest.mark.long),
        pytest.param("input", [], 1, marks=pytest.mark.long),
        pytest.param("network", ["--networks=resnet8"], 1, marks=pytest.mark.long),
        pytest.param(
            "network",
            [
                "--networks=resnet8",
                "--backend=jax",
                "--policy=mixed_bfloat16",
                "--pixels=64",
                "--batch=4",
            ],
            1,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "network",
            ["--networks=resnet8", "--backend=torch", "--batch=4"],
            1,
            marks=pytest.mark.long,
        ),
        pytest.param("memory", ["--batch=2"], 1, marks=pytest.mark.long),
        pytest.param("scaling", [], 4, marks=pytest.mark.long),
        pytest.param("startup", [], 1, marks=pytest.mark.long),
    ],
)
def test_table_and_file_hold_every_variant(kind, flags, cases, tmp_path):
    path = tmp_path / "benchmark.csv"
    picture = tmp_path / "benchmark.png"
    flags = [*flags, "--processes=1", "--rounds=1", f"--csv={path}"]
    flags.append(f"--plot={picture}")
    done = run(kind, *flags)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len({row["case"] for row in rows}) == cases
    variants = {row["variant"] for row in rows}
    expected = {"size": {"AN compiled"}, "input": {"JPEG decode", "training"}}
    assert variants >= expected.get(kind, {"AN", "BN"})
    for name in variants:
        assert name in done.stdout
    for row in rows:
        assert float(row["value"]) > 0 or kind == "scaling"
        if row["variant"] == summary.REFERENCE[kind]:
            assert float(row["ratio"]) == 1
        assert row["tensorflow"] and row["date"] and row["machine"]
        assert f"--backend={row['backend']}" in [*flags, "--backend=tensorflow"]


def test_serve_compares_pairs_of_exports_per_runtime():
    def row(case, variant, value):
        common = {"case": case, "variant": variant, "value": value, "unit": "ms"}
        return {**common, "phase": "p50"}

    rows = [row("a 8x8, onnx, batch 1", v, n) for v, n in (("BN", 2.0), ("AN", 3.0))]
    rows.append(row("b 8x8, onnx, batch 1", "AN", 5.0))
    summed = summary.summarize("serve", [rows])
    assert [r["reference"] for r in summed] == ["BN", "BN", ""]
    (plotted,) = summary.overheads(summed)
    assert (plotted["case"], plotted["variant"]) == ("a 8x8", "onnx")
    assert plotted["phase"] == "batch 1" and plotted["ratio"] == 1.5
    assert serving.split_variant("resnet50_an") == ("resnet50", "AN")
    assert serving.split_variant("resnet50_se") == ("resnet50_se", "")


@pytest.mark.slow
def test_serve_measures_an_export_and_refuses_other_directories(tmp_path):
    file, table = tmp_path / "net.weights.h5", tmp_path / "serve.csv"
    options = {"input_shape": (8, 8, 1)}
    model_zoo.create_model("resnet8_an", classes=3, **options).save_weights(file)
    classifier = image_classifier.of_network(
        "resnet8_an", str(file), options, tuple("abc")
    )
    export = write.export(classifier, tmp_path / "out")
    flags = ["--rounds=3", "--processes=1", "--batches=1,2", f"--csv={table}"]
    done = run("serve", str(export), *flags)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.read_text().splitlines()))
    phases = ["p50", "p90", "p99", "throughput"]
    assert [row["phase"] for row in rows] == ["size", "load", *phases, *phases]
    assert all(float(row["value"]) > 0 and not row["reference"] for row in rows)
    done = run("serve", str(tmp_path))
    assert done.returncode == 1 and "is not an export of train.export" in done.stderr
