"""The authors' checkpoints as dictionaries of arrays: names, layouts, strictness."""

import re

import numpy as np
import pytest
from keras import ops

import model_zoo
from model_zoo.torch_checkpoint import number_of_classes
from model_zoo.torch_file import state_dict
from tests.model_zoo import reference
from tests.model_zoo.reference import as_checkpoint

SMALL = {"input_shape": (64, 64, 3), "classifier_activation": None}


def release_names(state):
    """Renames the keys of an AOGNet-v2 ResNet to those of iVMCL-Release."""
    attentive = {key[: -len(".weight_")] for key in state if key.endswith(".weight_")}
    renamed = {}
    for key, value in state.items():
        for module in attentive:
            if key.startswith(f"{module}."):
                norm = re.sub(r"bn(\d)$", r"AttnBN2d\1", module)
                key = norm + key[len(module) :].replace(
                    "attention_weights", "attn_weights"
                )
        renamed[key] = value
    return renamed


def mobile_release_names(state):
    """Renames the keys of an AOGNet-v2 MobileNetV2 to those of iVMCL-Release."""
    blocks = (1, 2, 3, 4, 3, 3, 1)
    names = ["stem", *(f"layer{r + 1}.{j}" for r in range(7) for j in range(blocks[r]))]
    names.append("layer7.1")
    return {
        re.sub(r"^features\.(\d+)", lambda m: names[int(m[1])], key).replace(
            "attention_weights", "attn_weights"
        ): value
        for key, value in state.items()
    }


_BLOCK = r"stage(\d)\.stage_\d_block_(\d)"
_NODE = _BLOCK + r"\.\w+_node_(\d+)_op"
_WRAPPED = r"(?:conv_norm\.)+(\d)"
KINDS = ("conv", "bn")


def released_node(stage, block, node):
    place = f"layer{stage + 1}.{2 * block + 1}"
    return f"{place}.stage_{stage + 1}_block_{block + 1}_node_{node}_op"


# Module of AOGNet-v2 -> name in iVMCL-Release, from the numbers in it.
AOG_MODULES = (
    (rf"stem\.(\d)\.{_WRAPPED}", lambda i, k: f"stem.conv1.{i}.{KINDS[k]}"),
    (
        rf"{_BLOCK}_transition\.0\.{_WRAPPED}",
        lambda s, b, k: f"layer{s + 1}.{2 * b}.transition.0.{KINDS[k]}",
    ),
    (
        rf"{_NODE}\.conv_norm_(?:ac_)?(\d)\.{_WRAPPED}",
        lambda s, b, n, i, k: f"{released_node(s, b, n)}.{KINDS[k]}{i}",
    ),
    (
        rf"{_NODE}\.shortcut\.{_WRAPPED}",
        lambda s, b, n, k: f"{released_node(s, b, n)}.downsample.{KINDS[k]}",
    ),
    (
        rf"{_BLOCK}\.extra_norm_ac\.0",
        lambda s, b: f"layer{s + 1}.{2 * b + 1}.extra_norm_ac.0",
    ),
    (r"fc", lambda: "fc"),
)


def aog_release_names(state):
    """Renames the keys of an AOGNet of AOGNet-v2 to those of iVMCL-Release."""
    renamed = {}
    for key, value in state.items():
        module, attention, leaf = key.partition(".attention_weights.")
        if not attention:
            module, _, leaf = key.rpartition(".")
        for pattern, rename in AOG_MODULES:
            if match := re.fullmatch(pattern, module):
                name = rename(*map(int, match.groups()))
        if f"{module}.weight_" in state:
            name = name.replace("bn", "AttnBN2d")
        renamed[f"{name}{'.attn_weights.' if attention else '.'}{leaf}"] = value
    assert len(renamed) == len(state)
    return renamed


@pytest.mark.parametrize(
    ("case", "rename"),
    [
        ("resnet50_an", release_names),
        ("mobilenetv2_an", mobile_release_names),
        ("aognet_12m_an", aog_release_names),
    ],
)
def test_both_code_bases_give_the_same_network(case, rename):
    model, report = reference.build(case, input_shape=(64, 64, 3))
    state = rename(reference.checkpoint(case))
    assert not state.keys() <= set(report.loaded.values())
    other = model_zoo.create_model(case, **SMALL)
    model_zoo.load_torch_checkpoint(other, state)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def shapes_of_resnet50d():
    """Derives the checkpoint of ResNet-50-AN with the 3x3 stem from the 7x7 one."""
    state = dict(reference.checkpoint("resnet50_an"))
    first = {key: state.pop(key) for key in list(state) if key.startswith("conv1.")}
    assert list(first) == ["conv1.weight"]
    for index, (filters, channels) in {0: (32, 3), 3: (32, 32), 6: (64, 32)}.items():
        state[f"conv1.{index}.weight"] = np.full((filters, channels, 3, 3), index / 9)
    for index in (1, 4):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"conv1.{index}.{leaf}"] = np.full(32, index / 9)
    pooled = re.compile(r"^(layer[234]\.0\.downsample)\.(\d)")
    return {
        pooled.sub(lambda m: f"{m[1]}.{int(m[2]) + 1}", key): value
        for key, value in state.items()
    }


@pytest.mark.parametrize("release", [False, True])
def test_3x3_stem_and_averaged_shortcuts_are_mapped(release):
    state = shapes_of_resnet50d()
    if release:
        state = {
            re.sub(r"^bn1\.", "stem.7.", re.sub(r"^conv1\.", "stem.", key)): value
            for key, value in state.items()
        }
    model = model_zoo.create_model("resnet50d_an", **SMALL)
    model_zoo.load_torch_checkpoint(model, state)
    for conv, index in (("stem_conv1", 0), ("stem_conv2", 3), ("stem_conv3", 6)):
        assert (
            ops.convert_to_numpy(model.get_layer(conv).kernel) == np.float32(index / 9)
        ).all()
    last = "stem.7.weight" if release else "bn1.weight"
    np.testing.assert_array_equal(model.get_layer("stem_norm3").gamma, state[last])


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({"gate_normalization": None, "gate_activation": "sigmoid"}, {0: 0}),
        (
            {"gate_hidden_units": 20, "gate_normalization": None},
            {0: 0, 2: 1},
        ),
        ({"gate_hidden_units": 20}, {0: 0, 1: 1, 3: 2, 4: 3}),
    ],
)
def test_gates_of_all_published_modes_are_read(options, indices):
    """`indices` maps places in the published stack to those of our gate's layers."""
    model = model_zoo.create_model(
        "resnet18_an", num_components=10, norm_options=options, **SMALL
    )
    state = as_checkpoint(model)
    gate = {k for k in state if k.startswith("layer1.0.bn1.attention_weights")}
    assert {int(k.split(".")[5]) for k in gate} == set(indices)
    other = model_zoo.create_model(
        "resnet18_an", num_components=10, norm_options=options, **SMALL
    )
    model_zoo.load_torch_checkpoint(other, state)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def small():
    return model_zoo.create_model("resnet18_an", **SMALL)


def test_containers_prefixes_and_half_precision_are_handled(small):
    state = as_checkpoint(small)
    packed = {
        "epoch": 119,
        "arch": "resnet",
        "best_prec1": 77.0,
        "optimizer": {"state": {}},
        "state_dict": {
            f"module.network.{key}": value.astype("float16")
            for key, value in state.items()
        },
    }
    other = model_zoo.create_model("resnet18_an", **SMALL)
    model_zoo.load_torch_checkpoint(other, packed)
    for a, b in zip(small.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a.astype("float16").astype("float32"), b)
    for around in ("model", "state_dict"):
        packed = {around: packed, "epoch": 1}
        assert state_dict(packed).keys() == state.keys()
    assert number_of_classes(state) == 1000


def test_counters_are_skipped_and_reported(small):
    counter = {"bn1.num_batches_tracked": np.int64(7)}
    report = model_zoo.load_torch_checkpoint(small, as_checkpoint(small) | counter)
    assert report.skipped == list(counter)
    assert report.loaded["stage1_block1_norm1/gamma"] == "layer1.0.bn1.weight_"
    assert not report.new_head


def test_new_head_is_kept_and_the_rest_is_loaded(small):
    state = as_checkpoint(small)
    other = model_zoo.create_model("resnet18_an", classes=7, **SMALL)
    head = [ops.convert_to_numpy(w) for w in other.get_layer("predictions").weights]
    report = model_zoo.load_torch_checkpoint(other, state, head="new")
    assert report.new_head and report.skipped == ["fc.weight", "fc.bias"]
    for a, b in zip(small.get_weights()[:-2], other.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(head, other.get_layer("predictions").weights, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="fc.bias: shape \\(1000,\\) does not fit"):
        model_zoo.load_torch_checkpoint(other, state)


@pytest.mark.parametrize("path", [None, 3, []])
def test_wrong_types_raise_type_error(small, path):
    with pytest.raises(TypeError, match="path of a file or a dictionary of arrays"):
        model_zoo.load_torch_checkpoint(small, path)
    with pytest.raises(TypeError, match="`model` must be a Keras model. Received"):
        model_zoo.load_torch_checkpoint(path, {})


def change(state, key, value):
    return {**state, key: value}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda s: {k: v for k, v in s.items() if k != "layer2.1.conv1.weight"},
            "stage2_block2_conv1/kernel: not in the checkpoint",
        ),
        (
            lambda s: change(s, "layer5.0.conv1.weight", s["conv1.weight"]),
            "layer5.0.conv1.weight: the network has no such variable",
        ),
        (
            lambda s: change(s, "stem.0.weight", s["conv1.weight"]),
            "stem_conv/kernel is already filled by conv1.weight",
        ),
        (
            lambda s: change(s, "bn1.bias", np.zeros(65)),
            "bn1.bias: shape \\(65,\\) does not fit stem_norm/beta \\(64,\\)",
        ),
        (
            lambda s: change(s, "bn1.bias", np.full(64, np.nan)),
            "bn1.bias: holds numbers that are not finite",
        ),
        (
            lambda s: change(s, "bn1.bias", np.full(64, 1e300)),
            "bn1.bias: holds numbers that are not finite",
        ),
        (
            lambda s: change(s, "bn1.running_var", np.full(64, -1.0)),
            "bn1.running_var: holds variances below 0",
        ),
        (
            lambda s: change(s, "bn1.bias", np.zeros(64, "complex64")),
            "bn1.bias: holds complex64, expected floating point",
        ),
        (
            lambda s: change(s, "fc.weight", s["fc.weight"][..., None, None]),
            "fc.weight: shape \\(1000, 512, 1, 1\\) does not fit",
        ),
        (lambda s: change(s, "lr", 0.1), "must hold arrays by name. Received: lr"),
        (lambda s: {}, "Received: nothing"),
    ],
)
def test_mismatched_checkpoint_changes_nothing(small, spoil, words):
    other = model_zoo.create_model("resnet18_an", **SMALL)
    before = other.get_weights()
    with pytest.raises(ValueError, match=words):
        model_zoo.load_torch_checkpoint(other, spoil(as_checkpoint(small)))
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_group_normalization_is_read_from_both_code_bases():
    options = {"normalization": "group", "position": "norm2", **SMALL}
    model = model_zoo.create_model("resnet18_an", **options)
    state = as_checkpoint(model)
    assert not any("running" in key for key in state)
    assert "layer1.0.bn2.attention_weights.attention.0.bias" in state
    release = {
        re.sub(r"bn(\d)\.(weight_|bias_|att)", r"AttnGN\1.\2", key).replace(
            ".bn", ".gn"
        ): v
        for key, v in state.items()
    }
    assert "layer1.0.AttnGN2.weight_" in release and "layer1.0.gn1.weight" in release
    other = model_zoo.create_model("resnet18_an", **options)
    model_zoo.load_torch_checkpoint(other, release)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_error_without_the_top_suggests_a_new_head(small):
    features = model_zoo.create_model(
        "resnet18_an", include_top=False, input_shape=(64, 64, 3)
    )
    with pytest.raises(ValueError, match='fc.bias: .*; head="new" leaves it out'):
        model_zoo.load_torch_checkpoint(features, as_checkpoint(small))
    report = model_zoo.load_torch_checkpoint(features, as_checkpoint(small), head="new")
    assert report.skipped == ["fc.weight", "fc.bias"]


def test_checkpoint_with_other_norms_is_refused(small):
    other = model_zoo.create_model("resnet18_bn", **SMALL)
    with pytest.raises(
        ValueError, match="does not match resnet18_bn; nothing was load"
    ):
        model_zoo.load_torch_checkpoint(other, as_checkpoint(small))


def test_head_must_be_strict_or_new(small):
    with pytest.raises(ValueError, match="'strict' or 'new'. Received: head='old'"):
        model_zoo.load_torch_checkpoint(small, {}, head="old")


@pytest.mark.parametrize(
    ("head", "received"),
    [
        ({"fc.weight": np.ones((7, 5)), "fc.bias": np.ones(8)}, r"fc.bias \(8,\)"),
        ({"fc.weight": np.ones((0, 5)), "fc.bias": np.ones(0)}, r"fc.weight \(0, 5\)"),
        ({"fc.weight": np.ones((7, 5)), "fc.bias": np.ones(())}, r"fc.bias \(\)"),
    ],
)
def test_classifier_arrays_must_agree_on_the_classes(head, received):
    with pytest.raises(ValueError, match=f"agree on the number of classes.*{received}"):
        number_of_classes(head)
    with pytest.raises(ValueError, match="has no classifier"):
        number_of_classes({"conv1.weight": np.ones((7, 5))})


def test_unusual_keys_are_reported_in_one_short_line(small):
    with pytest.raises(
        ValueError, match="by name. Received: a key of type int, 'a.nb'."
    ):
        model_zoo.load_torch_checkpoint(small, {1: np.ones(3), "a\nb": 2})
    state = as_checkpoint(small) | {"\x1b[2J" + "a" * 5000: np.ones(3)}
    with pytest.raises(ValueError, match="1 differences: '.x1b.2Jaa") as error:
        model_zoo.load_torch_checkpoint(small, state)
    assert len(str(error.value)) < 300
