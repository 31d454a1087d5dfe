"""Prints class names and scores for image files, from TensorFlow Serving over gRPC.

    pip install tensorflow-serving-api
    python examples/serving/grpc_client.py image.png...
    python examples/serving/grpc_client.py --label=stable image.png

From TensorFlow, it uses only the messages that tensorflow-serving-api needs. Exit
codes: 0 success, 1 an error, 2 usage.
"""

import argparse
import pathlib
import struct
import sys
from collections.abc import Sequence

import grpc
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SERVER = "localhost:8500"
MODEL = "digits"
SIGNATURE = "image_bytes"

Guesses = list[tuple[str, float]]


class ClientError(Exception):
    """An error for the user, on one line."""


def build_request(
    contents: Sequence[bytes],
    model: str = MODEL,
    version: int | None = None,
    label: str | None = None,
) -> predict_pb2.PredictRequest:
    """Builds a request for image file contents, by default to the newest version."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = SIGNATURE
    if version is not None:
        request.model_spec.version.value = version
    elif label is not None:
        request.model_spec.version_label = label
    images = request.inputs["image_bytes"]
    images.dtype = types_pb2.DT_STRING
    images.tensor_shape.dim.add(size=len(contents))
    images.string_val.extend(contents)
    return request


def read_answer(response: predict_pb2.PredictResponse) -> list[Guesses]:
    """Returns the best classes of each image as (name, score), the best one first.

    Raises:
        ClientError: If it is not an answer of the signature.
    """
    missing = {"classes", "scores"} - set(response.outputs)
    if missing:
        raise ClientError(
            "Not an answer of an export. Expected classes and scores. "
            f"Received: {', '.join(sorted(response.outputs)) or 'nothing'}."
        )
    classes, scores = response.outputs["classes"], response.outputs["scores"]
    shape = [dim.size for dim in classes.tensor_shape.dim]
    names, values = list(classes.string_val), _floats(scores)
    if len(shape) != 2 or not len(names) == len(values) == shape[0] * shape[1]:
        raise ClientError(
            "Not an answer of an export. Expected a name and a score for each guess. "
            f"Received: shape {shape}, {len(names)} names, {len(values)} scores."
        )
    guesses = [
        (name.decode(), score) for name, score in zip(names, values, strict=True)
    ]
    return [guesses[i * shape[1] :][: shape[1]] for i in range(shape[0])]


def _floats(tensor: tensor_pb2.TensorProto) -> list[float]:
    # The server packs them with --enable_serialization_as_tensor_content.
    if tensor.tensor_content:
        return [value for (value,) in struct.iter_unpack("<f", tensor.tensor_content)]
    return list(tensor.float_val)


def predict(
    server: str, request: predict_pb2.PredictRequest, timeout: float
) -> list[Guesses]:
    """Sends a request; returns the answer as `read_answer` does.

    Raises:
        ClientError: If there is no server, or it refuses the request.
    """
    with grpc.insecure_channel(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = stub.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            reason = f"{error.code().name} from {server}: {error.details()}"
            raise ClientError(" ".join(reason.split())[:400]) from error
    return read_answer(response)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("images", nargs="+", type=pathlib.Path, metavar="IMAGE")
    arguments.add_argument("--server", default=SERVER, help="default: %(default)s")
    arguments.add_argument("--model", default=MODEL, help="default: %(default)s")
    which = arguments.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="default: the newest one served")
    which.add_argument("--label", help="such as stable or canary, instead of a version")
    arguments.add_argument("--timeout", type=float, default=30, help="seconds")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        contents = [image.read_bytes() for image in arguments.images]
    except OSError as error:
        print(f"error: Cannot read an image: {error}.", file=sys.stderr)
        return 1
    request = build_request(
        contents, arguments.model, arguments.version, arguments.label
    )
    try:
        answers = predict(arguments.server, request, arguments.timeout)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for image, guesses in zip(arguments.images, answers, strict=True):
        text = "  ".join(f"{name} {score:.4f}" for name, score in guesses)
        print(f"{image}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
