"""The REST and gRPC clients, with a real export behind test servers.

TensorFlow Serving is not run. An HTTP and a gRPC server replace it. They answer as its
documentation describes, with the results of the SavedModel's own signature.
"""

import concurrent.futures
import contextlib
import http.server
import json
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from served import assert_same, decode_rest, guesses, read_lines
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from examples.serving import grpc_client, rest_client


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


def assert_one_line(captured, words):
    assert captured.out == ""
    assert captured.err.startswith("error: ") and words in captured.err
    assert captured.err.count("\n") == 1


# ---- REST ----


def rest_body(answer):
    """Returns a REST answer to instances: one object for each image."""
    rows = [
        {
            "probabilities": [float(value) for value in probabilities],
            "classes": [name.decode() for name in classes],
            "scores": [float(score) for score in scores],
        }
        for probabilities, classes, scores in zip(
            answer["probabilities"], answer["classes"], answer["scores"], strict=True
        )
    ]
    return json.dumps({"predictions": rows}, indent=4).encode()


@pytest.fixture
def rest_server(signature):
    """Address of an HTTP server with the model, and the requested paths."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            paths.append(self.path)
            assert self.headers["Content-Type"] == "application/json"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                code, answer = 200, rest_body(signature(decode_rest(body)))
            except tf.errors.InvalidArgumentError as error:
                code, answer = 400, json.dumps({"error": error.message}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_rest_requests_hold_file_bytes_that_fit_the_signature(contents, export):
    every_byte = [bytes(range(256)), b""]
    assert decode_rest(rest_client.build_request(every_byte)) == every_byte
    decoded = decode_rest(rest_client.build_request(contents))
    assert decoded == contents
    function = tf.saved_model.load(str(export)).signatures["image_bytes"]
    ((name, spec),) = function.structured_input_signature[1].items()
    tensor = tf.constant(decoded)
    assert name == "image_bytes"
    assert tensor.dtype == spec.dtype and spec.shape.is_compatible_with(tensor.shape)


@pytest.mark.parametrize(
    ("which", "path"),
    [
        ({}, "/v1/models/digits:predict"),
        ({"version": 1140}, "/v1/models/digits/versions/1140:predict"),
        ({"label": "stable"}, "/v1/models/digits/labels/stable:predict"),
    ],
)
def test_rest_urls_name_the_model_and_its_version_or_label(which, path):
    for server in ("http://localhost:8501", "http://localhost:8501/"):
        url = rest_client.predict_url(server, "digits", **which)
        assert url == f"http://localhost:8501{path}"


def test_rest_client_prints_the_answers_of_the_signature(
    rest_server, images, contents, signature, capsys
):
    server, paths = rest_server
    flags = [f"--server={server}", "--model=some", "--version=7"]
    assert rest_client.main([*flags, *map(str, images)]) == 0
    assert paths == ["/v1/models/some/versions/7:predict"]
    expected = guesses(signature(contents))
    assert_same(read_lines(capsys.readouterr().out, images), expected, 5e-5)
    url = rest_client.predict_url(server, "some")
    assert_same(rest_client.predict(url, contents, timeout=30), expected)


def test_rest_client_runs_without_our_environment(rest_server, images):
    client = ROOT / "examples" / "serving" / "rest_client.py"
    server, _ = rest_server
    done = subprocess.run(
        [sys.executable, "-I", "-S", client, f"--server={server}", images[0]],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{images[0]}  ")


def test_rest_errors_are_printed_on_one_line(rest_server, images, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    server, _ = rest_server
    for flags, image, words in (
        ([f"--server={server}"], tmp_path / "text.png", "HTTP 400 from http://127"),
        ([f"--server={server}"], tmp_path / "none.png", "Cannot read an image"),
        (["--server=http://127.0.0.1:1"], images[0], "Connection refused"),
        (["--server=127.0.0.1:1"], images[0], "No answer from 127.0.0.1:1/v1"),
    ):
        assert rest_client.main([*flags, str(image)]) == 1
        assert_one_line(capsys.readouterr(), words)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"predictions": [{"scores": [1]}]}', b"\xff"]
)
def test_rest_client_refuses_malformed_answers(body):
    with pytest.raises(rest_client.ClientError, match="Not an answer of an export"):
        rest_client.read_answer(body)


# ---- gRPC ----


def response(answer):
    message = predict_pb2.PredictResponse()
    for name, value in answer.items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


@contextlib.contextmanager
def grpc_server(predict):
    """Yields the address of a PredictionService that calls `predict`."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            try:
                return predict(request)
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_requests_hold_tensors_that_fit_the_signature(
    contents, signature, short_run, images, command
):
    request = grpc_client.build_request(contents)
    assert request.model_spec.signature_name == "image_bytes"
    assert list(request.inputs) == ["image_bytes"]
    tensor = tf.make_ndarray(request.inputs["image_bytes"])
    assert tensor.shape == (3,) and list(tensor) == contents

    done = command("-m", "train.predict", short_run[0], *images)
    expected = read_lines(done.stdout, images)
    # one image at a time, as train.predict does: a batch rounds differently
    answers = [guesses(signature(tensor[i : i + 1]))[0] for i in range(3)]
    assert_same(answers, expected, 5e-5)


def test_grpc_requests_name_the_model_and_its_version_or_label():
    newest = grpc_client.build_request([b""], "some").model_spec
    assert newest.name == "some" and newest.WhichOneof("version_choice") is None
    version = grpc_client.build_request([b""], version=1140).model_spec
    assert version.version.value == 1140
    label = grpc_client.build_request([b""], label="stable").model_spec
    assert label.version_label == "stable"


def test_grpc_answers_are_read_from_fields_and_packed_content(contents, signature):
    answer = signature(contents)
    message = response(answer)
    assert message.outputs["scores"].tensor_content  # as make_tensor_proto does
    assert_same(grpc_client.read_answer(message), guesses(answer), 0)
    scores = message.outputs["scores"]
    scores.tensor_content = b""
    scores.float_val.extend(answer["scores"].ravel())
    assert_same(grpc_client.read_answer(message), guesses(answer), 0)


def test_grpc_client_refuses_malformed_answers():
    features = response({"features": np.ones((1, 3), np.float32)})
    uneven = response({"classes": np.array([[b"a"]]), "scores": np.ones((1, 2), "f")})
    for message in (features, uneven):
        with pytest.raises(grpc_client.ClientError, match="Not an answer of an export"):
            grpc_client.read_answer(message)


def test_grpc_client_prints_the_answers_of_the_signature(
    images, contents, signature, tmp_path, capsys
):
    requests = []

    def predict(request):
        requests.append(request)
        tensor = tf.make_ndarray(request.inputs["image_bytes"])
        return response(signature(list(tensor)))

    (tmp_path / "text.png").write_text("no picture")
    expected = guesses(signature(contents))
    with grpc_server(predict) as server:
        flags = [f"--server={server}", "--model=some", "--version=7"]
        assert grpc_client.main([*flags, *map(str, images)]) == 0
        assert_same(read_lines(capsys.readouterr().out, images), expected, 5e-5)
        request = grpc_client.build_request(contents)
        assert_same(grpc_client.predict(server, request, timeout=30), expected)
        assert grpc_client.main([*flags, str(tmp_path / "text.png")]) == 1
        assert_one_line(capsys.readouterr(), f"INVALID_ARGUMENT from {server}")
        # the REST client on the gRPC port
        assert rest_client.main([f"--server=http://{server}", str(images[0])]) == 1
        assert_one_line(capsys.readouterr(), "Expected TensorFlow Serving there")
    assert requests[0].model_spec.name == "some"
    assert requests[0].model_spec.version.value == 7


def test_grpc_errors_are_printed_on_one_line(images, tmp_path, capsys):
    for image, words in (
        (images[0], "UNAVAILABLE from 127.0.0.1:1"),
        (tmp_path / "none.png", "Cannot read an image"),
    ):
        assert grpc_client.main(["--server=127.0.0.1:1", str(image)]) == 1
        assert_one_line(capsys.readouterr(), words)
