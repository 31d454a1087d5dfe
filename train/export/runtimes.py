"""Formats of an export, and the runtimes that load them.

Every runtime takes `images` uint8 (N, H, W, C) and returns probabilities float32
(N, classes).
"""

import functools
import importlib.util
import pathlib
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterable

import numpy as np

from train import paths
from train.cli import RunError

# Files of an export by format; the SavedModel is always there.
FILES = {
    "saved_model": "saved_model.pb",
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "model.xml",
}
PARTS = {"saved_model": ("variables/*",), "openvino": ("model.bin",)}
OTHERS = tuple(name for name in FILES if name != "saved_model")
PACKAGES = {
    "litert": ("ai_edge_litert",),
    "onnx": ("onnxruntime", "tf2onnx"),
    "openvino": ("openvino",),
}
QUANTIZATIONS = ("float16", "dynamic", "int8")


def require_packages(names: Iterable[str]) -> None:
    """Checks that formats can be written and loaded on this machine.

    Raises:
        RunError: If a package is not installed.
    """
    for name in names:
        for package in PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise RunError(
                    f"The format {name} needs the package {package}. Expected: pip "
                    'install -e ".[train,export]". Received: it is not installed.'
                )


def write(
    name: str,
    serving_model,
    directory: pathlib.Path,
    quantization: str | None = None,
    samples: np.ndarray | None = None,
) -> None:
    """Writes a format other than the SavedModel.

    Args:
        name: Name of the format.
        serving_model: Keras model, `images` uint8 -> {"probabilities": float32}, that
            computes in float32.
        directory: Directory of the export.
        quantization: Quantization of LiteRT: `"float16"` for the weights, `"dynamic"`
            for int8 weights, `"int8"` for weights and activations, `None` for float32.
        samples: Images whose activations set the ranges of int8, uint8 (N, H, W, C).
    """
    path = str(directory / FILES[name])
    export = functools.partial(
        serving_model.export,
        verbose=False,
        input_signature=serving_model.inputs,  # without it, ONNX needs an earlier call
    )
    if name == "litert":
        export(path, format=name, **_litert_options(quantization, samples))
    elif name == "openvino":
        _write_openvino(export, path)
    else:
        export(path, format=name)


def _write_openvino(export, path):
    """Converts a SavedModel.

    Keras' exporter passes OpenVINO a function, which it cannot read on Python 3.13.
    """
    import openvino

    with tempfile.TemporaryDirectory() as directory:
        export(directory)
        openvino.serialize(openvino.convert_model(directory), path)


def _litert_options(quantization, samples):
    import tensorflow as tf

    if quantization is None:
        return {}
    options = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantization == "float16":
        return {**options, "target_spec": {"supported_types": [tf.float16]}}
    if quantization == "dynamic":
        return options
    return {
        **options,
        "representative_dataset": lambda: ({"images": i[np.newaxis]} for i in samples),
    }


def newest_export(path: pathlib.Path) -> pathlib.Path:
    """Returns `path` if it is a SavedModel, else the newest version in it.

    Args:
        path: An export, a directory of versions, or a run.

    Raises:
        RunError: If there is no SavedModel.
    """
    if (path / "saved_model.pb").is_file():
        return path
    if not (versions := exports(path) or _versions(path)):
        raise RunError(
            f"{path} holds no SavedModel. Expected an export, a directory of exports, "
            "or the directory of a run that has been exported."
        )
    return versions[-1]


def exports(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Returns the version directories of a run, the newest one last."""
    return _versions(workdir / "export")


def _versions(directory):
    versions = [
        version
        for version in directory.glob("*")
        if re.fullmatch("[0-9]+", version.name)
        and (version / "saved_model.pb").is_file()
    ]
    return sorted(versions, key=lambda version: int(version.name))


def size(name: str, directory: pathlib.Path) -> int:
    """Returns the bytes of the files of a format in an export, without assets."""
    patterns = (FILES[name], *PARTS.get(name, ()))
    files = (path for pattern in patterns for path in directory.glob(pattern))
    return sum(path.stat().st_size for path in files)


def load(name: str, directory: pathlib.Path, threads: int | None = None) -> Callable:
    """Loads a format into its runtime; returns images -> probabilities.

    The runtimes are configured to compute in float32 and not to keep a core busy
    between two calls.

    Args:
        name: Name of the format.
        directory: Directory of the export.
        threads: Number of threads of the runtime. `None` selects its default.
            TensorFlow uses the threads of its process.

    Returns:
        A function. For the SavedModel, its attribute `model` holds the loaded model.

    Raises:
        RunError: If a file is damaged.
    """
    paths.require_literal(directory, "of the export")
    try:
        return _LOADERS[name](str(directory), threads)
    except Exception as error:  # each runtime raises its own
        raise RunError(
            f"{directory} cannot be loaded. Expected undamaged files. Received: "
            f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"
        ) from error


def _load_saved_model(directory, threads):
    del threads
    import tensorflow as tf

    model = tf.saved_model.load(directory)
    serve = model.signatures["serving_default"]

    def predict(images):
        return serve(images=tf.constant(images))["probabilities"].numpy()

    predict.model = model  # keeps its variables alive
    return predict


def _load_litert(directory, threads):
    from ai_edge_litert.interpreter import Interpreter

    path = f"{directory}/{FILES['litert']}"
    runner = Interpreter(path, num_threads=threads).get_signature_runner()
    return lambda images: runner(images=images)["probabilities"]


def _load_onnx(directory, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(f"{directory}/{FILES['onnx']}", options)
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _load_openvino(directory, threads):
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    path = f"{directory}/{FILES['openvino']}"
    model = openvino.Core().compile_model(path, "CPU", options)
    return lambda images: model({"images": images})["probabilities"]


_LOADERS = {
    "saved_model": _load_saved_model,
    "litert": _load_litert,
    "onnx": _load_onnx,
    "openvino": _load_openvino,
}
