"""Requests to served models and their answers, for the tests of the examples."""

import base64
import json

import numpy as np


def guesses(answer):
    """Converts the arrays of the signature to the result expected of clients."""
    return [
        [(name.decode(), float(score)) for name, score in zip(*row, strict=True)]
        for row in zip(answer["classes"], answer["scores"], strict=True)
    ]


def assert_same(received, expected, tolerance=1e-6):
    assert [[n for n, _ in row] for row in received] == [
        [n for n, _ in row] for row in expected
    ]
    np.testing.assert_allclose(
        [[s for _, s in row] for row in received],
        [[s for _, s in row] for row in expected],
        rtol=0,
        atol=tolerance,
    )


def read_lines(text, images):
    """Parses the output of a client or train.predict: names and scores per image."""
    rows = []
    for line, image in zip(text.splitlines(), images, strict=True):
        words = line.removeprefix(f"{image}  ").split()
        scores = map(float, words[1::2])
        rows.append(list(zip(words[::2], scores, strict=True)))
    return rows


def decode_rest(body):
    """Returns the images in the body of a request, as the server decodes them."""
    message = json.loads(body)
    assert set(message) == {"signature_name", "instances"}
    assert message["signature_name"] == "image_bytes"
    for instance in message["instances"]:
        assert set(instance) == {"image_bytes"}
        assert set(instance["image_bytes"]) == {"b64"}
    return [
        base64.b64decode(instance["image_bytes"]["b64"], validate=True)
        for instance in message["instances"]
    ]
