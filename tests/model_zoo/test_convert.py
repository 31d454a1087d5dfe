"""PyTorch files are read with weights only, converted, verified. Needs PyTorch."""

import os
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
from golden import weights_rule

import model_zoo
from model_zoo.__main__ import main
from model_zoo.convert import layer_differences
from model_zoo.torch_file import read_torch_file
from tests.model_zoo import reference
from tests.model_zoo.reference import as_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torch():
    import torch

    return torch


@pytest.fixture(scope="module")
def tensors(torch):
    return {
        key: torch.from_numpy(np.asarray(value))
        for key, value in reference.checkpoint("mobilenetv2_an").items()
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_file_and_dictionary_give_the_same_network(legacy, torch, tensors, tmp_path):
    path = tmp_path / "model_best.pth.tar"
    content = {
        "epoch": 150,
        "arch": "mobilenetv2",
        "best_prec1": 73.3,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "state_dict": {
            f"module.network.{key}": value for key, value in tensors.items()
        },
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    known, _ = reference.build("mobilenetv2_an")
    model = model_zoo.create_model("mobilenetv2_an")
    model_zoo.load_torch_checkpoint(model, path)
    for a, b in zip(known.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32(dtype, torch, tensors):
    halves = {
        key: value.to(getattr(torch, dtype)) if value.is_floating_point() else value
        for key, value in tensors.items()
    }
    model = model_zoo.create_model("mobilenetv2_an")
    model_zoo.load_torch_checkpoint(model, halves)
    kernel = tensors["features.18.0.weight"].to(getattr(torch, dtype)).float().numpy()
    layer = model.get_layer("last_conv")
    np.testing.assert_array_equal(layer.kernel, kernel.transpose(2, 3, 1, 0))


def test_convert_verifies_and_writes(torch, tensors, tmp_path, capsys):
    source, out = tmp_path / "a.pth", tmp_path / "a.weights.h5"
    torch.save({"state_dict": tensors}, source)
    command = ["convert", str(source), "--model=mobilenetv2_an", f"--out={out}"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "mobilenetv2_an with 1000 classes" in text
    assert "347 loaded, 69 counters skipped, 0 left over" in text
    assert "105 compared with PyTorch" in text
    assert "after reading the file back 0.0e+00" in text
    model = model_zoo.create_model("mobilenetv2_an", weights=out)
    known, _ = reference.build("mobilenetv2_an")
    for a, b in zip(known.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "a.weights.h5"]


def test_convert_uses_the_classes_of_the_checkpoint(torch, tensors, tmp_path, capsys):
    small = dict(tensors)
    for key in ("classifier.1.weight", "classifier.1.bias"):
        shape = (7, *tensors[key].shape[1:])
        small[key] = torch.from_numpy(weights_rule.tensor(key, shape))
    torch.save(small, tmp_path / "a.pth")
    out = tmp_path / "a.weights.h5"
    assert (
        main(
            [
                "convert",
                str(tmp_path / "a.pth"),
                "--model=mobilenetv2_an",
                f"--out={out}",
            ]
        )
        == 0
    )
    assert "with 7 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "group"},
        {"norm_options": {"gate_hidden_units": 20}},
        {"norm_options": {"gate_normalization": None, "gate_activation": "sigmoid"}},
        {"norm_options": {"gate_activation": "softmax"}, "position": "all"},
        {"normalization": "group", "position": "norm12", "num_components": 3},
    ],
)
def test_every_variant_is_compared_with_pytorch(options):
    arguments = {"input_shape": (33, 33, 3), "classifier_activation": None, **options}
    model = model_zoo.create_model("resnet18_an", **arguments)
    reference.fill(model)
    arrays = as_checkpoint(model)
    report = model_zoo.load_torch_checkpoint(model, arrays)
    differences = layer_differences(model, report, arrays)
    assert differences.keys() == {layer.name for layer in model.layers if layer.weights}
    assert max(differences.values()) < 1e-5


def test_wrong_layout_is_detected():
    model = model_zoo.create_model(
        "resnet18_an", input_shape=(33, 33, 3), classifier_activation=None
    )
    arrays = as_checkpoint(model)
    report = model_zoo.load_torch_checkpoint(model, arrays)
    kernel = model.get_layer("stage1_block1_conv1").kernel
    kernel.assign(np.swapaxes(kernel.numpy(), 0, 1))
    differences = layer_differences(model, report, arrays)
    assert {name for name, value in differences.items() if value > 1e-5} == {
        "stage1_block1_conv1"
    }


def test_network_arguments_are_passed_on(torch, tmp_path, capsys):
    model = model_zoo.create_model("resnet18_an", position="norm12", classes=3)
    state = {k: torch.from_numpy(v.copy()) for k, v in as_checkpoint(model).items()}
    source, out = tmp_path / "a.pth", tmp_path / "a.weights.h5"
    torch.save(state, source)
    command = ["convert", str(source), "--model=resnet18_an", f"--out={out}"]
    assert main(command) == 1
    assert "does not match resnet18_an" in capsys.readouterr().err
    assert main([*command, "--set=position=norm12"]) == 0
    assert "resnet18_an with 3 classes" in capsys.readouterr().out


def test_mismatched_network_writes_nothing(torch, tensors, tmp_path, capsys):
    torch.save(tensors, tmp_path / "a.pth")
    out = tmp_path / "a.weights.h5"
    assert (
        main(
            [
                "convert",
                str(tmp_path / "a.pth"),
                "--model=mobilenetv2_bn",
                f"--out={out}",
            ]
        )
        == 1
    )
    assert "does not match mobilenetv2_bn" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.pth"]


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile_zip(torch, content, path):
    torch.save(content, path)


def hostile_legacy(torch, content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def hostile_pickle(torch, content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [hostile_zip, hostile_legacy, hostile_pickle])
def test_code_in_a_file_is_refused_and_not_run(write, torch, tensors, tmp_path, capsys):
    trace, path = tmp_path / "trace", tmp_path / "a.pth"
    write(torch, {"state_dict": tensors, "epoch": Hostile(trace)}, path)
    with pytest.raises(
        ValueError, match=r"refused: it refers to (posix|torch.storage)\.\w+"
    ) as error:
        read_torch_file(path)
    assert "weights_only" not in str(error.value)
    model = model_zoo.create_model("mobilenetv2_an")
    before = model.get_weights()
    with pytest.raises(ValueError, match="is refused"):
        model_zoo.load_torch_checkpoint(model, path)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    out = tmp_path / "a.weights.h5"
    assert main(["convert", str(path), "--model=mobilenetv2_an", f"--out={out}"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not out.exists() and not trace.exists()


def test_newer_pickle_is_refused_without_advice_to_trust_it(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"a": Hostile(tmp_path / "trace")}, protocol=4))
    with pytest.raises(ValueError, match="is refused: it is damaged or not") as error:
        read_torch_file(path)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "trace").exists()


def test_damaged_and_renamed_files_give_a_one_line_error(torch, tensors, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(tensors, whole)
    content = whole.read_bytes()
    weights = tmp_path / "a.weights.h5"
    model_zoo.create_model("resnet20_an").save_weights(weights)
    archive = tmp_path / "archive.pth"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text")
    files = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "start": content[:100],
        "flipped": content[:60] + bytes(1000) + content[1060:],
        "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "weights": weights.read_bytes(),
        "zip": archive.read_bytes(),
        "text": b"not a checkpoint\n",
    }
    for name, data in files.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with pytest.raises(
            ValueError, match="is refused: it is damaged or not"
        ) as error:
            read_torch_file(path)
        assert len(str(error.value).splitlines()) == 1, name


def test_wrong_contents_and_missing_files_are_reported(torch, tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold a dictionary. Received: list"):
        read_torch_file(tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "numbers.pth")
    model = model_zoo.create_model("resnet20_an")
    with pytest.raises(ValueError, match="must hold arrays by name. Received: epoch"):
        model_zoo.load_torch_checkpoint(model, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="Expected the path of a checkpoint"):
        read_torch_file(tmp_path / "missing.pth")


def test_old_pytorch_is_refused(torch, tensors, tmp_path, monkeypatch):
    torch.save(tensors, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match="needs PyTorch 2.10.*Received: .* 2.9.1"):
        read_torch_file(tmp_path / "a.pth")


def stretched(torch, state):
    return state | {"fc.weight": torch.zeros(1).expand(10**10, 512)}


def stretched_halves(torch, state):
    return state | {"fc.bias": torch.zeros(1, dtype=torch.float16).expand(10**10)}


def shared(torch, state):
    numbers = torch.zeros(10**6)
    return state | {f"a.{i}": numbers for i in range(100)}


def sparse(torch, state):
    return state | {
        "fc.bias": torch.sparse_coo_tensor(
            [[0]], [1.0], (10**10,), check_invariants=True
        )
    }


def quantized(torch, state):
    with warnings.catch_warnings(action="ignore"):  # deprecated
        bias = torch.quantize_per_tensor(torch.zeros(7), 1.0, 0, torch.qint8)
    return state | {"fc.bias": bias}


def without_numbers(torch, state):
    return state | {"fc.bias": torch.empty(10**10, device="meta")}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (stretched, "must hold all data of its tensors, 2048000\\d+ bytes"),
        (stretched_halves, "must hold all data of its tensors, 2000\\d+ bytes"),
        (shared, "must hold all data of its tensors"),
        (sparse, "must hold plain tensors. Received: fc.bias, which is sparse"),
        (quantized, "must hold plain tensors. Received: fc.bias, which is sparse"),
        (without_numbers, "must hold plain tensors. Received: fc.bias, which is"),
    ],
)
def test_tensors_larger_than_their_stored_data_are_refused(
    spoil, words, torch, tmp_path, capsys
):
    path, out = tmp_path / "a.pth", tmp_path / "a.weights.h5"
    torch.save(spoil(torch, {"bn1.bias": torch.zeros(64)}), path)
    assert path.stat().st_size < 10**7
    assert main(["convert", str(path), "--model=resnet18_an", f"--out={out}"]) == 1
    error = capsys.readouterr().err
    assert re.match(f"error: A checkpoint {words}", error) and error.count("\n") == 1


def test_compressed_files_are_not_unpacked(torch, tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "a.pth"
    torch.save({"fc.bias": torch.zeros(10**6)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is refused: its members declare 400"):
        read_torch_file(path)


def test_dictionary_that_contains_itself_is_refused(torch, tmp_path):
    content = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "a.pth")
    model = model_zoo.create_model("resnet20_an")
    with pytest.raises(ValueError, match="arrays by name. Received: state_dict"):
        model_zoo.load_torch_checkpoint(model, tmp_path / "a.pth")
