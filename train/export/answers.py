"""Checks an export's answers: batches, unusual images, every format, test images.

`python -m train.export.answers` is the process in which `train.serve_check` checks an
export. It may not import Keras or our packages, write files, or take more memory than
the machine has. It is ended if a part of the check takes too long.
"""

import os
import signal
import sys

BLOCKED = ("keras", "tf_keras", "an_keras", "model_zoo")

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent process reports it
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    for _module in BLOCKED:
        sys.modules[_module] = None  # importing it now fails

import contextlib
import functools
import json
import pathlib
import resource
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from train import config
from train.cli import RunError, UsageError
from train.export import inspection, odd_images, runtimes
from train.input import augment, dataset, pipeline

BATCHES = (1, 3, 64)
SIGNATURES = {"serving_default", "image_bytes", "features"}
# Tolerance between answers to one image, by precision: rounding depends on the batch.
CLOSE = {"float64": 1e-4, "float32": 1e-4, "mixed_float16": 1e-2, "mixed_bfloat16": 0.1}
# Exceptions that reading a malformed file raises.
WRONG = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RecursionError),
)
FLIPS = 0.002  # share of test images whose first guess rounding may change
UNLIMITED = "test images"  # a part without limits: it may prepare a data set
LOSSY = 0.02  # tolerance between answers to a picture and to its JPEG


def check(
    path: pathlib.Path,
    data_dir: str | None = None,
    place: str | None = None,
    begin: Callable[[str], None] = lambda part: None,
) -> Iterator[str]:
    """Checks an export and yields a line for each check that passes.

    Args:
        path: Directory of the export.
        data_dir: Directory in which tensorflow-datasets keeps its files. `None`
            selects the default.
        place: Current location of the run's data set. `None` if it has not moved.
        begin: Called with the name of each part of the check before it starts.

    Raises:
        RunError: If it is not an export of `train.export`, or its answers are wrong.
    """
    begin("files and operations")
    yield f"{inspection.require_plain(path)} kinds of operations, all allowed"
    card = read_card(path)
    begin("loading")
    predictors = {name: runtimes.load(name, path) for name in _present(path)}
    signatures = predictors["saved_model"].model.signatures
    shape, names = card["preprocessing"]["shape"], card["class_names"]
    yield f"signatures {', '.join(require_signatures(signatures, shape, len(names)))}"
    begin("answers of a server")
    difference = _check_server(path, signatures, card)
    yield f"answers as a server computes them: within {difference:.1e}"
    begin("requests to warm up")
    yield f"{_check_warm_up(path, signatures)} requests to warm up, answered"
    tolerance = CLOSE[card["precision"]]
    begin("batches")
    _check_batches(signatures["serving_default"], card, tolerance)
    yield f"batches of {', '.join(map(str, BATCHES))}: equal answers"
    if "image_bytes" in signatures:
        begin("images as bytes")
        answered, refused = _check_bytes(signatures["image_bytes"], card, tolerance)
        yield f"right answers to {', '.join(answered)}"
        yield f"refused, as they should be: {', '.join(refused)}"
        yield "good images answered after refused ones"
    begin("other formats")
    for name, difference in _differences(predictors, card):
        yield f"{name}: probabilities within {difference:.1e} of the SavedModel"
    if not card["test"]:
        yield "accuracy not compared: model.json has none for these weights"
        return
    begin(UNLIMITED)
    settings = config.from_dict(config.Data, card["data_settings"])
    data = dataset.load_again(settings, card["data_fingerprint"], data_dir, place)
    expected, count = card["test"]["top1"], len(data.splits["test"])
    for name, predict in predictors.items():
        start = functools.partial(begin, f"accuracy of {name}")
        accuracy = _accuracy(predict, data, start)
        allowed = 0.5 if name == "saved_model" else max(FLIPS * count, 1.5)
        quantized = name == "litert" and card["quantization"]
        if not quantized and abs(accuracy - expected) * count >= allowed:
            raise RunError(
                f"{path} does not reproduce its accuracy in {name}. Expected: "
                f"{expected:.4f} of {count} test images. Received: {accuracy:.4f}."
            )
        kind = f"{name} {quantized}" if quantized else name
        trained = f"trained: {expected:.4f}" if quantized else "as trained"
        yield f"{kind} top-1 {accuracy:.4f} on {count} test images, {trained}"


def read_card(path: pathlib.Path) -> dict:
    """Returns `model.json` of an export.

    Raises:
        RunError: If it is not readable, or does not match the export.
    """
    file = path / "assets" / "model.json"
    try:
        card = json.loads(file.read_text())
        CLOSE[card["precision"]], card["quantization"], card["compared"]
        card["model"].isprintable()
        height, width, channels = map(int, card["preprocessing"]["shape"])
        if card["test"]:
            float(card["test"]["top1"]), card["data_fingerprint"]
            config.from_dict(config.Data, card["data_settings"])
        labels = (path / "assets" / "labels.txt").read_text(encoding="utf-8")
        labels = labels.split("\n")[:-1]
    except (OSError, *WRONG) as error:
        raise RunError(
            f"{path} is not an export of train.export. Expected a readable {file}. "
            f"Received: {error!r}."
        ) from error
    for name, expected, received in (
        ("labels.txt", card["class_names"], labels),
        ("the name of its directory", str(card["version"]), path.resolve().name),
    ):
        if expected != received:
            raise RunError(
                f"{path} does not match its model.json in {name}. "
                f"Expected: {expected}. Received: {received}."
            )
    return card


def _present(path):
    return [name for name, file in runtimes.FILES.items() if (path / file).is_file()]


def require_signatures(signatures, shape: tuple, classes: int) -> list[str]:
    """Checks that a SavedModel has the signatures of `train.export`.

    Returns:
        Their names.

    Raises:
        RunError: If one is missing, or has other inputs or outputs.
    """
    guesses = min(5, classes)
    answers = {
        "probabilities": (tf.float32, [None, classes]),
        "classes": (tf.string, [None, guesses]),
        "scores": (tf.float32, [None, guesses]),
    }
    images = {"images": (tf.uint8, [None, *shape])}
    expected = {"serving_default": (images, answers)}
    if shape[-1] in augment.DECODABLE:
        expected["image_bytes"] = {"image_bytes": (tf.string, [None])}, answers
    received = {name: _described(signatures[name]) for name in signatures}
    inputs, outputs = received.get("features", ({}, {}))
    dtype, features = outputs.get("features", (None, []))
    if inputs != images or dtype != tf.float32 or len(features) != 2:
        raise RunError(
            "The signature features must be images uint8 (N, height, width, channels) "
            f"-> features float32 (N, D). Received: {inputs} -> {outputs}."
        )
    for name, signature in expected.items():
        if received.get(name) != signature:
            raise RunError(
                f"The signature {name} is wrong. Expected: {signature}. "
                f"Received: {received.get(name)}."
            )
    return sorted(received)


def _check_server(path, signatures, card):
    """Checks that the graph's nodes, which servers run, match the functions."""
    served, tolerance, largest = _served(path), CLOSE[card["precision"]], 0.0
    pictures = tf.constant([odd_images.plain(card["preprocessing"]["shape"][-1])])
    given = {"images": tf.constant(_noise(card, 3)), "image_bytes": pictures}
    for name in SIGNATURES & {*signatures}:
        (key,) = signatures[name].structured_input_signature[1]
        answers = [each[name](**{key: given[key]}) for each in (signatures, served)]
        output = "features" if name == "features" else "probabilities"
        expected, received = (answer[output].numpy() for answer in answers)
        scale = max(1.0, np.abs(expected).max())
        difference = float(np.abs(received - expected).max() / scale)
        if not difference <= tolerance:
            raise RunError(
                f"{path} gives different answers in a server. Expected the {output} "
                f"of the function {name}. Received: a difference of "
                f"{difference:.2e}."
            )
        largest = max(largest, difference)
    _check_batches(served["serving_default"], card, tolerance)
    return largest


def _served(path):
    """Returns the signatures as servers run them: nodes of a graph, in a session."""
    session, logger = tf.compat.v1.Session(graph=tf.Graph()), tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # no deprecation warning: TensorFlow Serving does the same
    try:
        saved = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    finally:
        logger.setLevel(level)

    def run(signature, **inputs):
        feeds = {signature.inputs[name].name: inputs[name].numpy() for name in inputs}
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        return {k: tf.constant(v) for k, v in session.run(fetches, feeds).items()}

    return {
        name: functools.partial(run, signature)
        for name, signature in saved.signature_def.items()
    }


def _check_warm_up(path, signatures):
    """Runs the warm-up requests of TensorFlow Serving and returns their number."""
    file, count = path / "assets.extra" / "tf_serving_warmup_requests", 0
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
            serve = signatures[log.request.model_spec.signature_name]
            inputs = {k: tf.make_ndarray(v) for k, v in log.request.inputs.items()}
            serve(**{name: tf.constant(value) for name, value in inputs.items()})
            count += 1
    except (tf.errors.OpError, DecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{file} is damaged. Expected requests that the signatures answer. "
            f"Received: {textwrap.shorten(repr(error), 300)}"
        ) from error
    return count


def _described(function):
    """Returns inputs and outputs, each as {name: (dtype, shape)}."""
    return tuple(
        {name: (spec.dtype, spec.shape.as_list()) for name, spec in specs.items()}
        for specs in (
            function.structured_input_signature[1],
            function.structured_outputs,
        )
    )


def _noise(card, count):
    shape = card["preprocessing"]["shape"]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def _check_batches(serve, card, tolerance):
    images, names = _noise(card, max(BATCHES)), np.array(card["class_names"])
    whole = None
    for count in sorted(BATCHES, reverse=True):
        answer = serve(images=tf.constant(images[:count]))
        answer = {name: value.numpy() for name, value in answer.items()}
        probabilities, scores = answer["probabilities"], answer["scores"]
        whole = probabilities if whole is None else whole
        difference = np.abs(probabilities - whole[:count]).max()
        order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : scores.shape[1]]
        guessed = np.char.decode(answer["classes"].astype(bytes), "utf-8")
        if not (
            difference <= tolerance
            and np.allclose(probabilities.sum(-1), 1, atol=1e-3)
            and np.array_equal(np.take_along_axis(probabilities, order, -1), scores)
            and np.array_equal(guessed, names[order])
        ):
            raise RunError(
                f"The answer to a batch of {count} images is wrong. Expected "
                "probabilities that sum to 1 and equal those of other batches, and "
                "the names and scores of the largest. Received: a difference of "
                f"{difference:.2e}, {guessed[0]}, {scores[0]}."
            )


@contextlib.contextmanager
def _without_messages():
    """A context without the messages of libjpeg and libpng about unusual images."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _check_bytes(serve, card, tolerance):
    """Returns the names of the images that are answered and those refused."""
    channels = card["preprocessing"]["shape"][-1]
    answered, refused = [], []
    for name, content, equal, is_lossy in odd_images.pictures(channels):
        try:
            with _without_messages():
                answer = _probabilities(serve, [content])
        except tf.errors.InvalidArgumentError:
            refused.append(name)
            continue
        difference = np.abs(answer - _probabilities(serve, [equal])).max()
        if not difference <= (max(LOSSY, tolerance) if is_lossy else tolerance):
            raise RunError(
                f"{name} and a PNG of the same picture get different answers. "
                "Expected equal probabilities, or an error. Received: a difference of "
                f"{difference:.2e}."
            )
        answered.append(name)
    good = odd_images.plain(channels)
    before = _probabilities(serve, [good])
    for name, content in odd_images.damaged(channels):
        for batch in ([content], [good, content]):
            try:
                with _without_messages():
                    answer = _probabilities(serve, batch)
            except tf.errors.InvalidArgumentError:
                continue
            raise RunError(
                f"{name} is not an image. Expected an error. Received: {answer[-1]}."
            )
        refused.append(name)
        if not np.array_equal(before, _probabilities(serve, [good])):
            raise RunError(f"After {name}, a good image gets a different answer.")
    if not {"PNG", "JPEG"} <= {*answered}:
        raise RunError(
            f"Expected answers to PNG and JPEG. Received: answers to {answered} only."
        )
    return answered, refused


def _probabilities(serve, contents):
    return serve(image_bytes=tf.constant(contents))["probabilities"].numpy()


def _differences(predictors, card):
    """Yields each of the other formats and its difference from the SavedModel."""
    images = _noise(card, 3)
    expected = predictors["saved_model"](images)
    for name, predict in predictors.items():
        if name == "saved_model":
            continue
        difference = float(np.abs(predict(images) - expected).max())
        quantized = name == "litert" and card["quantization"]
        if not quantized and not difference <= CLOSE[card["precision"]]:
            raise RunError(
                f"{name} differs from the SavedModel. Expected equal probabilities. "
                f"Received: a difference of {difference:.2e}."
            )
        yield name, difference


def _accuracy(predict, data, begin):
    right = 0.0
    for batch, labels, weights in pipeline.evaluation_batches(
        data, "test", 256, standardized=False
    ):
        begin()  # the time limit applies to one batch
        correct = predict(batch.numpy()).argmax(-1) == labels.numpy()
        right += float((correct * weights.numpy()).sum())
    return right / len(data.splits["test"])


def report(path: str, data_dir: str | None, place: str | None, time_limit: int) -> None:
    """Checks an export in this process, with its resources limited.

    Prints messages in JSON: `part` before a part starts, `line` for a check that
    passes, `error` as the last one. SIGALRM ends the process if a part takes too long.

    Args:
        path: Directory of the export.
        data_dir, place: As in `check`.
        time_limit: Time limit of a part, in seconds.
    """
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for the output of libraries
    file_size, part = resource.getrlimit(resource.RLIMIT_FSIZE), "loading"
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if most != resource.RLIM_INFINITY:
        memory = min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def say(**message):
        print(json.dumps(message), file=messages, flush=True)

    def begin(name):
        nonlocal part
        part, limited = name, name != UNLIMITED
        say(part=part)
        largest = 0 if limited else file_size[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, file_size[1]))
        signal.alarm(time_limit if limited else 0)

    try:
        for line in check(pathlib.Path(path), data_dir, place, begin):
            say(line=line)
        say(line=f"without {', '.join(BLOCKED)}")
    except (RunError, UsageError) as error:
        say(error=str(error))
    except Exception as error:  # an export can make a runtime raise anything
        say(
            error=f"{path} fails in the part '{part}'. Expected answers. Received: "
            f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"
        )


if __name__ == "__main__":
    report(*json.loads(sys.argv[1]))
