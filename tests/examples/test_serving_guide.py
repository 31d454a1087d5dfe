"""The configuration files of the examples, and the guide in docs/serving.md."""

import base64
import re
import shlex
import subprocess

import pytest
import yaml
from conftest import ROOT
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from served import decode_rest
from tensorflow_serving.config import model_server_config_pb2

from examples.serving import grpc_client, rest_client

SERVING = ROOT / "examples" / "serving"
GUIDE = (ROOT / "docs" / "serving.md").read_text()


def schema(name, **fields):
    """Returns an empty message with these fields, for formats without .proto in pip.

    A field is a wrapper class, "bool", "string", "int64s", or another message.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test")
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    file.dependency.append(wrappers.name)
    file.syntax = "proto3"
    message = file.message_type.add(name=name)
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (field, kind) in enumerate(fields.items(), start=1):
        added = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
        if isinstance(kind, str):
            added.type = getattr(kinds, f"TYPE_{kind.rstrip('s').upper()}")
            if kind.endswith("s"):
                added.label = kinds.LABEL_REPEATED
        else:
            added.type = kinds.TYPE_MESSAGE
            added.type_name = f".{kind.DESCRIPTOR.full_name}"
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))()


def model_configs(name):
    text = (SERVING / name).read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return config.model_config_list.config


def test_model_configs_serve_the_clients_model():
    for name in ("models.config", "labels.config"):
        (model,) = model_configs(name)
        assert model.name == rest_client.MODEL == grpc_client.MODEL == "digits"
        assert model.base_path == "/models/digits"
        assert model.model_platform == "tensorflow"
    (newest,) = model_configs("models.config")
    assert newest.model_version_policy.latest.num_versions == 2
    (labelled,) = model_configs("labels.config")
    versions = set(labelled.model_version_policy.specific.versions)
    assert set(labelled.version_labels) == {"stable", "canary"}
    assert set(labelled.version_labels.values()) <= versions


def test_batch_sizes_are_valid_and_typing_errors_are_detected():
    int64 = wrappers_pb2.Int64Value
    fields = {
        "max_batch_size": int64,
        "batch_timeout_micros": int64,
        "max_enqueued_batches": int64,
        "num_batch_threads": int64,
        "thread_pool_name": wrappers_pb2.StringValue,
        "allowed_batch_sizes": "int64s",
        "pad_variable_length_inputs": "bool",
    }
    text = (SERVING / "batching.config").read_text()
    batching = text_format.Parse(text, schema("BatchingParameters", **fields))
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batchsize { value: 1 }", schema("Other", **fields))


def test_compose_file_mounts_its_files_and_opens_the_clients_ports():
    composed = yaml.safe_load((SERVING / "compose.yaml").read_text())
    (service,) = composed["services"].values()
    assert re.fullmatch(r"tensorflow/serving:2\.\d+\.\d+", service["image"])
    ports = [int(port.rpartition(":")[2]) for port in service["ports"]]
    clients = [grpc_client.SERVER, rest_client.SERVER]
    assert ports == [int(server.rpartition(":")[2]) for server in clients]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["volumes"] == ["${MODELS:-../../models}:/models:ro", ".:/config:ro"]
    files = re.findall(r"/config/(?:\$\{CONFIG:-)?([\w.]+)", str(service["command"]))
    assert files == ["models.config", "batching.config", "monitoring.config"]
    assert all((SERVING / file).is_file() for file in files)


def test_guide_uses_existing_flags_and_files():
    clients = {"rest": rest_client, "grpc": grpc_client}
    called = re.findall(r"\npython examples/serving/(\w+)_client.py (.*)", GUIDE)
    assert {name for name, _ in called} == set(clients)
    for name, arguments in called:
        clients[name].parser().parse_args(shlex.split(arguments, comments=True))
    address = rest_client.predict_url(rest_client.SERVER, rest_client.MODEL)
    assert address in GUIDE
    for file in re.findall(r"examples/serving/[\w.]*\w", GUIDE):
        assert (ROOT / file).exists()
    assert "CONFIG=labels.config" in GUIDE


@pytest.mark.slow
def test_guide_shows_the_output_of_saved_model_cli(export, command):
    module = "tensorflow.python.tools.saved_model_cli"
    printed = command("-m", module, "show", "--dir", export, "--all").stdout
    shown = GUIDE[GUIDE.index("signature_def['image_bytes']") :].split("\n```")[0]
    assert shown in printed


def test_guide_sends_the_body_of_the_client_with_curl(contents):
    (line,) = re.findall(r"^(echo .*b64.*) \\\n *\| curl", GUIDE, re.MULTILINE)
    line = line.replace("$(base64 -w0 image.png)", "IMAGE")
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    encoded = base64.b64encode(contents[0])
    assert decode_rest(done.stdout.replace(b"IMAGE", encoded)) == contents[:1]
