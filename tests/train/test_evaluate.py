"""python -m train.evaluate: runs, networks and exports, on any images."""

import csv
import json

import fake_imagenet
import numpy as np
import pytest

import model_zoo
from model_zoo.preprocessing import imagenet_classes
from train import evaluate

IDS = [wordnet_id for wordnet_id, _ in imagenet_classes()]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def flags(short_run, data_dir):
    return [f"--workdir={short_run[0]}", f"--data_dir={data_dir}"]


def test_evaluate_reproduces_the_accuracy_of_the_run(short_run, flags, call):
    results = json.loads((short_run[0] / "results.json").read_text())
    done = call(evaluate, *flags, "--batch_size=7")
    words = done.stdout.split()
    received = {name: float(words[words.index(name) + 1]) for name in ("loss", "top1")}
    for name, value in received.items():
        assert value == pytest.approx(results[name], abs=2e-4)
    assert "(355 images, step 60)" in done.stdout


def test_evaluate_writes_counts_that_agree_with_its_accuracy(flags, tmp_path, call):
    out = tmp_path / "new" / "directory"
    printed = call(evaluate, *flags, "--batch_size=7", f"--out={out}").stdout
    assert printed.startswith("test  loss ")
    assert "\nclasses: 10\n" in printed and "\nconfusion matrix: " in printed
    assert printed.endswith(f"\nfiles in {out}\n")
    classes, confusion, wrong = (
        read(out / f"{name}.csv") for name in ("classes", "confusion", "wrong")
    )
    correct = sum(int(row["correct"]) for row in classes)
    assert correct == sum(int(row[row[""]]) for row in confusion)
    assert sum(int(row["images"]) for row in classes) == correct + len(wrong) == 355
    assert f"  top1 {correct / 355:.4f}  " in printed
    assert f"\nwrong: {len(wrong)} of 355 images" in printed
    assert (out / "confusion.png").stat().st_size > 1000


def test_evaluate_reports_a_directory_that_cannot_be_made(flags, tmp_path, call):
    (tmp_path / "file").touch()
    done = call(evaluate, *flags, f"--out={tmp_path / 'file'}", expected=1)
    assert "File exists" in done.stderr and done.stdout == ""


def test_export_has_the_accuracy_of_its_run(short_run, data_dir, tmp_path, call):
    table = tmp_path / "table.csv"
    of_export = f"--saved_model={short_run[0] / 'export'}", "--on=digits"
    place = f"--data_dir={data_dir}", f"--csv={table}", "--split=train"
    call(evaluate, *of_export, *place)
    call(evaluate, f"--workdir={short_run[0]}", "--on=digits", *place)
    of_export, of_run = read(table)
    assert of_export["version"] == of_run["version"] == "60"
    assert of_export["source"].endswith("export") and of_export["images"] == "1442"
    for name in ("loss", "top1", "top5", "ece"):
        assert float(of_export[name]) == pytest.approx(float(of_run[name]), abs=1e-5)


def test_each_corruption_and_severity_has_a_line(flags, tmp_path, call):
    table = tmp_path / "table.csv"
    chosen = "--corruption=contrast", "--corruption=gaussian_noise", "--images=100"
    severities = "--severity=1", "--severity=5"
    done = call(evaluate, *flags, *chosen, *severities, f"--csv={table}")
    call(evaluate, *flags, f"--csv={table}")
    *corrupted, clean = rows = read(table)
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        ("contrast", "1"),
        ("contrast", "5"),
        ("gaussian_noise", "1"),
        ("gaussian_noise", "5"),
        ("", ""),
    ]
    assert {row["images"] for row in corrupted} == {"89"} and clean["images"] == "355"
    accuracies = [float(row["top1"]) for row in corrupted]
    assert accuracies[1] < accuracies[0] <= float(clean["top1"]) + 0.1
    assert done.stdout.endswith(f"mean of 4  top1 {np.mean(accuracies):.4f}\n")
    again = call(evaluate, *flags, chosen[1], "--images=100", "--severity=5").stdout
    assert again.splitlines()[0] == done.stdout.splitlines()[3]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A network with the classes of ImageNet, and data sets like ImageNet's."""
    directory = tmp_path_factory.mktemp("imagenet")
    model = model_zoo.create_model(
        "resnet8_bn", input_shape=(32, 32, 3), classes=1000, classifier_activation=None
    )
    random = np.random.default_rng(0)
    model.layers[-1].bias.assign(random.normal(size=1000))  # different classes
    model.save_weights(directory / "model.weights.h5")
    labels = [*random.choice(1000, 20, replace=False), *random.choice(1000, 20)]

    def examples(**names):
        for label in labels:
            image = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            yield {"image": image, "label": label, "file_name": f"{IDS[label]}/a.jpeg"}

    for name in ("imagenet_v2/matched-frequency", "imagenet_a"):
        fake_imagenet.prepare(name, directory, {"test": [*examples()]})
    return directory


@pytest.fixture
def of_network(imagenet):
    return (
        *("--model=resnet8_bn", "--options={'input_shape': (32, 32, 3)}"),
        f"--weights={imagenet / 'model.weights.h5'}",
        f"--data_dir={imagenet}",
    )


def test_network_chooses_among_the_classes_of_imagenet_a(
    imagenet, of_network, tmp_path, call
):
    table, out = tmp_path / "table.csv", tmp_path / "out"
    call(evaluate, *of_network, "--on=imagenet_a", f"--csv={table}", f"--out={out}")
    names = "--on=imagenet_a", "--on=imagenet_v2/matched-frequency"
    call(evaluate, *of_network, *names, "--classes=all", f"--csv={table}")
    done = call(evaluate, *of_network, "--on=imagenet_a", "--images=1")
    assert " of 1000 classes, version 1)" in done.stdout.splitlines()[0]
    subset, whole, other = read(table)
    assert whole["classes"] == other["classes"] == "1000"
    assert other["data"] == "imagenet_v2/matched-frequency"
    assert 20 <= int(subset["classes"]) <= 40 and subset["images"] == "40"
    assert float(subset["loss"]) < float(whole["loss"])
    present = {
        row["class"] for row in read(out / "classes.csv") if row["images"] != "0"
    }
    guessed = {row["predicted class"] for row in read(out / "wrong.csv")}
    assert guessed <= present
    paths = {row["image"] for row in read(out / "wrong.csv")}
    assert all(path.endswith("/a.jpeg") for path in paths)


def test_map_renames_classes_and_leaves_out_others(
    of_network, imagenet, tmp_path, call
):
    (tmp_path / "map.json").write_text(json.dumps({IDS[n]: IDS[0] for n in range(500)}))
    given = "--on=imagenet_a", f"--label_map={tmp_path / 'map.json'}"
    out = tmp_path / "out"
    done = call(evaluate, *of_network, *given, "--classes=all", f"--out={out}")
    line = done.stdout.splitlines()[0]
    assert line.endswith(" left out, version 1)")
    labels = {row["class"] for row in read(out / "classes.csv") if row["images"] != "0"}
    assert labels == {"tench"}


def test_other_classes_are_an_error_before_anything_is_written(
    of_network, data_dir, tmp_path, call
):
    table = tmp_path / "table.csv"
    on = "--on=imagenet_a", "--on=digits"
    done = call(evaluate, *of_network, *on, f"--csv={table}", expected=1)
    assert "digits has other classes than the network" in done.stderr
    assert not table.exists() and "top1" not in done.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "Expected --workdir=VALUE"),
        (["--workdir=a", "--model=b"], "Received: --workdir, --model."),
        (["--model=b", "--on=digits"], "Expected --weights=FILE or a tag"),
        (["--model=b", "--weights=c"], "Expected --on=DATA with --model"),
        (["--saved_model=a", "--weights=c"], "Expected --weights with --model only"),
        (["--workdir=a", "--classes=all"], "Expected --classes with --on only"),
        (["--workdir=a", "--seed=1"], "Expected --seed with --corruption only"),
        (["--workdir=a", "--split=other"], "Expected --split as one of train"),
        (["--workdir=a", "--corruption=rain"], "corruption"),
        (["--workdir=a", "--corruption=fog", "--severity=6"], "severity"),
        (["--workdir=a", "--on=digits", "--data=digits"], "Received: both"),
        (["--workdir=a", "--corruption=all", "--out=b"], "Received: 80; see --csv"),
        (["--workdir=a", "--on=b", "--on=c", "--out=d"], "Received: 2; see --csv"),
    ],
)
def test_wrong_flags_are_usage_errors(given, expected, call):
    done = call(evaluate, *given, expected=2)
    assert expected in done.stderr and "top1" not in done.stdout


def test_table_with_other_columns_is_kept(flags, tmp_path, call):
    table = tmp_path / "table.csv"
    table.write_text("something else\n")
    done = call(evaluate, *flags, "--images=3", f"--csv={table}", expected=1)
    assert "has other columns" in done.stderr and "top1" not in done.stdout
    assert table.read_text() == "something else\n"
