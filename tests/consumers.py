"""Runs exports of six networks with third-party programs.

python tests/consumers.py DIR FILE.csv [NAME...] exports the networks to DIR. Without
names, it also exports their BN twins for `python -m train.benchmark serve`. It writes a
table with the largest difference of a probability between the Keras model and the
answer of each program, and fails if rounding does not explain a difference.
"""

import csv
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import model_zoo
from an_keras import convert_normalization
from tests.model_zoo import conversion, reference
from train.export import compare, copies, image_classifier, runtimes, write

ROOT = pathlib.Path(__file__).parent.parent
NETWORKS = {  # pixels
    "resnet20_an": 32,
    "resnet50_an": 64,
    "densenet121_an": 64,
    "mobilenetv2_an": 64,
    "applications.ANEfficientNetB0": conversion.SIZE,
    "aognet_cifar_an": 32,
}
PRECISIONS = ("float32", "mixed_bfloat16")
CLASSES = 10
WITHOUT_KERAS = """
import sys
for name in ("keras", "tf_keras", "an_keras", "model_zoo"):
    sys.modules[name] = None
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
images = tensorflow.constant(numpy.load(sys.argv[2]))
answer = model.signatures["serving_default"](images=images)["probabilities"]
numpy.save(sys.argv[2], answer)
"""


def make(name: str, precision: str, directory: pathlib.Path, fold=True, others=()):
    """Exports a network with weights as after training; returns it and its path."""
    file = directory / f"{name}.weights.h5"
    options = {"input_shape": (NETWORKS.get(name, 64),) * 2 + (3,)}
    if name.startswith("resnet20"):
        options["input_shape"] = (32, 32, 3)
    if name.startswith("applications."):
        name_of_keras = name.removeprefix("applications.AN")
        plain, _ = conversion.trained_like(name_of_keras, 0, 255)  # its input range
        model = convert_normalization(plain)
    else:
        model = model_zoo.create_model(name, classes=CLASSES, **options)
        reference.fill(model)
    model.save_weights(file)
    labels = tuple(f"class {i}" for i in range(CLASSES))
    classifier = image_classifier.of_network(name, str(file), options, labels)
    if precision != "float32":
        model = copies.with_precision(classifier.model, precision)
        classifier = dataclasses.replace(classifier, model=model)
    out = directory / name / precision
    return classifier, write.export(classifier, out, fold, others)


def answers(classifier, version, program: pathlib.Path):
    """Yields (consumer, largest difference from the Keras model, tolerance).

    The SavedModel has the precision of the model, the other formats have float32. The
    tolerance is what rounding explains.
    """
    images = compare.probe_images(classifier.shape)
    model = classifier.serving_model(classifier.model)
    expected = np.asarray(model(images)["probabilities"])
    assert np.ptp(expected, axis=0).max() > 1e-3  # it depends on the images
    plain = classifier.serving_model(classifier.network(False, "float32"))
    exact = np.asarray(plain(images)["probabilities"])

    file = version.parent / "images.npy"
    np.save(file, images)
    arguments = [sys.executable, "-c", WITHOUT_KERAS, str(version), str(file)]
    subprocess.run(arguments, check=True, capture_output=True)
    allowed = compare.limit(expected, classifier.precision, exact)
    yield "TensorFlow without Keras", np.abs(np.load(file) - expected).max(), allowed

    picture = version.parent / "image.png"
    picture.write_bytes(tf.io.encode_png(images[1]).numpy())
    decoded = classifier.decode_and_resize(picture.read_bytes())[np.newaxis]
    (expected,) = np.asarray(model(decoded)["probabilities"])
    scores = dict(consume(program, version, picture))
    named = dict(zip(classifier.class_names, expected, strict=True))
    largest = max(abs(scores[name] - named[name]) for name in scores)
    yield "C program", largest, allowed
    for name in runtimes.OTHERS:
        if (version / runtimes.FILES[name]).is_file():
            run = runtimes.load(name, version)
            largest = np.abs(run(images) - exact).max()
            yield name, largest, compare.limit(exact, "float32")


def build_program(directory: pathlib.Path, flags: str = "-O2") -> pathlib.Path:
    """Builds consumer.c in `directory` with the command in its first comment."""
    source = (ROOT / "examples" / "serving" / "consumer.c").read_text()
    (block,) = re.findall(r"^     TF=.*?\n\n", source, re.MULTILINE | re.DOTALL)
    assert "-Wall -Wextra -Werror" in block and " -O2 " in block
    block = block.replace(" -O2 ", f" {flags} ")
    (directory / "examples").symlink_to(ROOT / "examples")
    python = pathlib.Path(sys.executable).parent
    path = f"{python}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=directory,
        env={**os.environ, "PATH": path},
        check=True,
    )
    return directory / "consumer"


def run_program(program: pathlib.Path, *arguments):
    """Runs the program without our environment variables and Python."""
    return subprocess.run(
        [program, *arguments],
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def consume(program: pathlib.Path, version, image) -> list[tuple[str, float]]:
    """Returns the names and scores that the program prints for an image."""
    done = run_program(program, version, image)
    assert done.returncode == 0, done.stderr
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return [(name, float(score)) for name, score in lines]


def main(directory, file, *names):
    keras.utils.set_random_seed(1908)
    directory = pathlib.Path(directory).resolve()
    directory.mkdir(parents=True)
    program = build_program(directory)
    rows = []
    for name in names or NETWORKS:
        for precision in PRECISIONS:
            start = time.perf_counter()
            others = runtimes.OTHERS if precision == "float32" else ()
            classifier, version = make(name, precision, directory, others=others)
            seconds = time.perf_counter() - start
            for consumer, difference, allowed in answers(classifier, version, program):
                rows.append(
                    {
                        "network": name,
                        "pixels": classifier.shape[0],
                        "precision": precision,
                        "consumer": consumer,
                        "difference": f"{difference:.1e}",
                        "export_seconds": f"{seconds:.0f}",
                        "machine": f"{os.cpu_count()} x {platform.machine()}",
                        "tensorflow": tf.__version__,
                        "keras": keras.__version__,
                        "date": datetime.date.today().isoformat(),
                    }
                )
                print(*list(rows[-1].values())[:5], sep="  ", flush=True)
                assert difference <= allowed, (consumer, difference, allowed)
        twin = name.replace("_an", "_bn")
        if twin != name and not names:
            make(twin, "float32", directory, others=runtimes.OTHERS)
    with open(file, "w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
