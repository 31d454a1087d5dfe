"""Prints class names and scores for image files, from TensorFlow Serving over REST.

    python examples/serving/rest_client.py image.png...
    python examples/serving/rest_client.py --label=stable image.png

Needs only Python. JSON cannot hold bytes, so images are sent as {"b64": "..."}, which
the server decodes: the model receives the bytes of the file. Exit codes: 0 success, 1
an error, 2 usage.
"""

import argparse
import base64
import http.client
import json
import pathlib
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

SERVER = "http://localhost:8501"
MODEL = "digits"
SIGNATURE = "image_bytes"

Guesses = list[tuple[str, float]]


class ClientError(Exception):
    """An error for the user, on one line."""


def predict_url(
    server: str, model: str, version: int | None = None, label: str | None = None
) -> str:
    """Returns the URL for images: of a version, a label, or the newest version."""
    which = ""
    if version is not None:
        which = f"/versions/{version}"
    elif label is not None:
        which = f"/labels/{urllib.parse.quote(label, safe='')}"
    model = urllib.parse.quote(model, safe="")
    return f"{server.rstrip('/')}/v1/models/{model}{which}:predict"


def build_request(contents: Sequence[bytes]) -> bytes:
    """Builds the body of a request, JSON, from the contents of image files."""
    instances = [
        {"image_bytes": {"b64": base64.b64encode(content).decode("ascii")}}
        for content in contents
    ]
    return json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode()


def read_answer(body: bytes) -> list[Guesses]:
    """Returns the best classes of each image as (name, score), the best one first.

    Raises:
        ClientError: If it is not an answer of the signature.
    """
    try:
        return [
            [
                (str(name), float(score))
                for name, score in zip(row["classes"], row["scores"], strict=True)
            ]
            for row in json.loads(body)["predictions"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ClientError(
            "Not an answer of an export. Expected JSON with predictions that have "
            f"classes and scores. Received: {one_line(body)}"
        ) from error


def one_line(body: bytes) -> str:
    """Returns the error message in a body, or else its start, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        pass  # a proxy's page, or another server
    return " ".join(text.split())[:300] or "nothing"


def predict(url: str, contents: Sequence[bytes], timeout: float) -> list[Guesses]:
    """Sends the contents of image files; returns the answer as `read_answer` does.

    Raises:
        ClientError: If there is no server, it refuses the request, or it is another
            kind of server.
    """
    request = urllib.request.Request(
        url,
        data=build_request(contents),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return read_answer(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            reason = one_line(error.read())
        raise ClientError(f"HTTP {error.code} from {url}: {reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ClientError(
            f"No answer from {url}. Expected TensorFlow Serving there, as started by "
            f"examples/serving/compose.yaml. Received: {reason}"
        ) from error


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
    url = predict_url(
        arguments.server, arguments.model, arguments.version, arguments.label
    )
    try:
        contents = [image.read_bytes() for image in arguments.images]
    except OSError as error:
        print(f"error: Cannot read an image: {error}.", file=sys.stderr)
        return 1
    try:
        answers = predict(url, contents, arguments.timeout)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for image, guesses in zip(arguments.images, answers, strict=True):
        text = "  ".join(f"{name} {score:.4f}" for name, score in guesses)
        print(f"{image}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
