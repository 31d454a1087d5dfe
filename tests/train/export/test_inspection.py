"""Hostile SavedModels are refused before anything in them is loaded or run."""

import os

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from train.cli import RunError
from train.export import answers, inspection, operations

ops = tf.raw_ops
FILE = "/tmp/file"


class Network(tf.Module):
    """A weight, a loop and a computed constant, as in honest exports."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(2.0)
        self.scale = tf.constant(3.0) * 2

    @tf.function(input_signature=[tf.TensorSpec((None,), name="images")])
    def __call__(self, images):
        return {"y": tf.map_fn(lambda x: x * self.weight, images) * self.scale}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest")
    network = Network()
    tf.saved_model.save(network, str(path), {"serving_default": network.__call__})
    return (path / "saved_model.pb").read_bytes()


@pytest.fixture
def model(honest, tmp_path, monkeypatch):
    """Returns a function that writes a changed copy. Loading it fails the test."""

    def forbidden(*arguments, **options):
        raise AssertionError("it was loaded")

    monkeypatch.setattr(tf.saved_model, "load", forbidden)

    def write(change):
        saved = saved_model_pb2.SavedModel.FromString(honest)
        change(saved.meta_graphs[0])
        (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
        return tmp_path

    return write


def test_honest_model_is_accepted(model):
    assert inspection.require_plain(model(lambda meta_graph: None)) > 10


def component():
    return {"output_types": [tf.string], "output_shapes": [()]}


def dataset():
    return ops.TensorDataset(components=[["a"]], output_shapes=[()])


def summary_writer():
    writer = ops.SummaryWriter()
    ops.CreateSummaryFileWriter(
        writer=writer,
        logdir=FILE,
        max_queue=1,
        flush_millis=1,
        filename_suffix="x",
    )
    ops.WriteScalarSummary(writer=writer, step=0, tag="a", value=1.0)


def text_file_table():
    table = ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    ops.InitializeTableFromTextFileV2(
        table_handle=table, filename=FILE, key_index=-2, value_index=-1
    )


HOSTILE = {
    "Save": lambda: ops.Save(filename=FILE, tensor_names=["a"], data=[[1.0]]),
    "SaveV2": lambda: ops.SaveV2(
        prefix=FILE, tensor_names=["a"], shape_and_slices=[""], tensors=[[1.0]]
    ),
    "SaveSlices": lambda: ops.SaveSlices(
        filename=FILE, tensor_names=["a"], shapes_and_slices=[""], data=[[1.0]]
    ),
    "MergeV2Checkpoints": lambda: ops.MergeV2Checkpoints(
        checkpoint_prefixes=[FILE], destination_prefix=FILE
    ),
    "RestoreV2": lambda: ops.RestoreV2(
        prefix=FILE, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    ),
    "WriteFile": lambda: ops.WriteFile(filename=FILE, contents="a"),
    "ReadFile": lambda: ops.ReadFile(filename=FILE),
    "MatchingFiles": lambda: ops.MatchingFiles(pattern="/*"),
    "WholeFileReaderV2": lambda: ops.WholeFileReaderV2(),
    "ImmutableConst": lambda: ops.ImmutableConst(
        dtype=tf.uint8, shape=(4,), memory_region_name=FILE
    ),
    "DatasetToTFRecord": lambda: ops.DatasetToTFRecord(
        input_dataset=dataset(), filename=FILE, compression_type=""
    ),
    "CacheDataset": lambda: ops.CacheDataset(
        input_dataset=dataset(), filename=FILE, **component()
    ),
    "SnapshotDatasetV2": lambda: ops.SnapshotDatasetV2(
        input_dataset=dataset(),
        path=FILE,
        reader_func_other_args=[],
        shard_func_other_args=[],
        reader_func=identity(),
        shard_func=identity(),
        **component(),
    ),
    "SaveDatasetV2": lambda: tf.data.Dataset.range(3).save(FILE),
    "TextLineDataset": lambda: ops.TextLineDataset(
        filenames=[FILE], compression_type="", buffer_size=1
    ),
    "TFRecordDataset": lambda: ops.TFRecordDataset(
        filenames=[FILE], compression_type="", buffer_size=1
    ),
    "FixedLengthRecordDataset": lambda: ops.FixedLengthRecordDataset(
        filenames=[FILE], header_bytes=0, record_bytes=1, footer_bytes=0, buffer_size=1
    ),
    "SqlDataset": lambda: ops.SqlDataset(
        driver_name="sqlite", data_source_name=FILE, query="select 1", **component()
    ),
    "RegisterDataset": lambda: ops.RegisterDataset(
        dataset=dataset(), address="a", protocol="grpc", external_state_policy=0
    ),
    "CreateSummaryFileWriter": summary_writer,
    "DebugIdentity": lambda: ops.DebugIdentity(input=1.0, debug_urls=["file:///tmp/x"]),
    "DebugIdentityV2": lambda: ops.DebugIdentityV2(
        input=1.0, tfdbg_context_id="a", op_name="a", output_slot=0, tensor_debug_mode=1
    ),
    "InitializeTableFromTextFileV2": text_file_table,
    "EagerPyFunc": lambda: tf.py_function(print, [1.0], []),
    "PyFunc": lambda: tf.numpy_function(print, [1.0], tf.float32),
    "PrintV2": lambda: ops.PrintV2(input="a", output_stream="file:///tmp/x"),
    "Print": lambda: ops.Print(input=1.0, data=[1.0], message="a"),
    "NonDeterministicInts": lambda: ops.NonDeterministicInts(shape=[2]),
    "ExtractGlimpseV2": lambda: ops.ExtractGlimpseV2(
        input=[[[[1.0]]]],
        size=[1, 1],
        offsets=[[9.0, 9.0]],
        uniform_noise=False,
        noise="gaussian",
    ),
    "RandomPoissonV2": lambda: ops.RandomPoissonV2(shape=[2], rate=1.0),
    "RandomUniform": lambda: tf.random.uniform((2,)),
    "StatelessRandomUniformV2": lambda: tf.random.stateless_uniform((2,), (1, 2)),
    "StatefulUniform": lambda: ops.StatefulUniform(
        resource=ops.VarHandleOp(dtype=tf.int64, shape=(3,)),
        algorithm=1,
        shape=[2],
    ),
    "Timestamp": lambda: tf.timestamp(),
    "Abort": lambda: ops.Abort(),
    "SleepDataset": lambda: ops.SleepDataset(
        input_dataset=dataset(), sleep_microseconds=9, **component()
    ),
    "FIFOQueueV2": lambda: ops.FIFOQueueV2(component_types=[tf.float32]),
    "StackV2": lambda: ops.StackV2(max_size=1, elem_type=tf.float32),
    "Barrier": lambda: ops.Barrier(component_types=[tf.float32]),
    "CollectiveReduce": lambda: ops.CollectiveReduce(
        input=1.0,
        group_size=2,
        group_key=1,
        instance_key=1,
        merge_op="Add",
        final_op="Id",
        subdiv_offsets=[0],
    ),
    "DecodeProtoV2": lambda: ops.DecodeProtoV2(
        bytes="a",
        message_type="a",
        field_names=["a"],
        output_types=[tf.float32],
        descriptor_source=FILE,
    ),
    "XlaLaunch": lambda: None,
    "CustomOperation": lambda: None,
    "Enter": lambda: ops.Enter(data=1.0, frame_name="a"),
    "VarHandleOp": lambda: ops.VarHandleOp(dtype=tf.float32, shape=()),
    "AssignVariableOp": lambda: None,
}


def identity():
    function = tf.function(lambda x: x, input_signature=[tf.TensorSpec((), tf.string)])
    return function.get_concrete_function()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_operation_is_refused(name, model):
    """The operation is in a function that is never called, as TensorFlow writes it."""
    with tf.Graph().as_default() as traced:
        HOSTILE[name]()
    graph = traced.as_graph_def()

    def change(meta_graph):
        library = meta_graph.graph_def.library
        library.function.extend(graph.library.function)
        added = library.function.add()
        added.signature.name = "hidden"
        added.node_def.extend(graph.node)
        if name not in {node.op for node in graph.node}:  # no kernel on this machine
            added.node_def.add(name="a", op=name)

    with pytest.raises(RunError, match=rf"not allowed.*\b{name}\b"):
        inspection.require_plain(model(change))
    assert name not in operations.IN_FUNCTIONS


def function(meta_graph, part):
    return next(
        each
        for each in meta_graph.graph_def.library.function
        if part in each.signature.name
    )


def node(nodes, op):
    return next(each for each in nodes if each.op == op)


def saver_by_another_node(meta_graph):
    call = meta_graph.graph_def.node.add(name="x", op="PartitionedCall")
    call.attr["f"].func.name = function(meta_graph, "traced_save").signature.name


def saver_in_a_signature(meta_graph):
    saver = meta_graph.saver_def
    signature = meta_graph.signature_def["save"]
    signature.inputs["file"].name = saver.filename_tensor_name
    signature.outputs["done"].name = saver.save_tensor_name


def saver_at_start(meta_graph):
    saver = meta_graph.saver_def.save_tensor_name.split(":")[0]
    meta_graph.collection_def["saved_model_main_op"].node_list.value[:] = [saver]


def saver_to_a_constant_path(meta_graph):
    saved = function(meta_graph, "traced_save")
    saved.node_def.add(name="own", op="Const").attr["value"].tensor.string_val.append(
        FILE.encode()
    )
    node(saved.node_def, "SaveV2").input[0] = "own:output:0"


def saver_with_another_suffix(meta_graph):
    saved = function(meta_graph, "traced_save")
    for each in saved.node_def:
        if each.attr["value"].tensor.string_val[:1] == [b".part"]:
            each.attr["value"].tensor.string_val[0] = b"/../../x"


def saver_with_a_separator(meta_graph):
    join = node(function(meta_graph, "traced_save").node_def, "StringJoin")
    join.attr["separator"].s = b"/../../x"


def two_savers_of_one_name(meta_graph):
    library = meta_graph.graph_def.library
    twin = library.function.add()
    twin.CopyFrom(function(meta_graph, "traced_save"))
    node(twin.node_def, "SaveV2").input[0] = "SaveV2/tensor_names:output:0"


def asset_with_terminal_escapes(meta_graph):
    meta_graph.asset_file_def.add(filename="\x1b[2J")


def saver_to_another_input(meta_graph):
    saved = function(meta_graph, "traced_save")
    node(saved.node_def, "SaveV2").input[0] = saved.signature.input_arg[1].name


def saver_to_a_path_of_its_own(meta_graph):
    name = meta_graph.saver_def.filename_tensor_name.split(":")[0]
    file = next(n for n in meta_graph.graph_def.node if n.name == name)
    file.op = "Const"


def saver_before_restoring(meta_graph):
    saver = meta_graph.saver_def
    restore = next(
        n for n in meta_graph.graph_def.node if n.name == saver.restore_op_name
    )
    restore.input.append(f"^{saver.save_tensor_name.split(':')[0]}")


def saver_that_saves_when_it_restores(meta_graph):
    restored, saved = (function(meta_graph, f"traced_{n}") for n in ("restore", "save"))
    restored.node_def.add().CopyFrom(node(saved.node_def, "MergeV2Checkpoints"))


def restoring_from_a_constant(meta_graph):
    restored = function(meta_graph, "traced_restore")
    restored.node_def.add(name="own", op="Const")
    restored.node_def.add(name="also", op="Identity", input=["own:output:0"])
    node(restored.node_def, "AssignVariableOp").input[1] = "also:output:0"


def restoring_that_depends_on_the_file_name(meta_graph):
    restored, saved = (function(meta_graph, f"traced_{n}") for n in ("restore", "save"))
    for op in ("StaticRegexFullMatch", "Select"):
        restored.node_def.add().CopyFrom(node(saved.node_def, op))
    node(restored.node_def, "AssignVariableOp").input[1] = "Select:output:0"


def restoring_from_itself(meta_graph):
    restored = function(meta_graph, "traced_restore")
    restored.node_def.add(name="own", op="Identity", input=["own:output:0"])
    node(restored.node_def, "AssignVariableOp").input[1] = "own:output:0"


def saver_as_a_method(meta_graph):
    name = function(meta_graph, "traced_save").signature.name
    objects = meta_graph.object_graph_def
    objects.nodes.add().bare_concrete_function.concrete_function_name = name


def call_of_signature(meta_graph, name):
    """Returns the node that a server runs for a signature."""
    output = next(iter(meta_graph.signature_def[name].outputs.values()))
    nodes = meta_graph.graph_def.node
    return next(n for n in nodes if n.name == output.name.split(":")[0])


def no_default_signature(meta_graph):
    del meta_graph.signature_def["serving_default"]


def signature_without_a_function(meta_graph):
    served = meta_graph.signature_def
    served["more"].CopyFrom(served["serving_default"])


def signature_with_an_extra_node(meta_graph):
    output = meta_graph.signature_def["serving_default"].outputs["y"]
    added = meta_graph.graph_def.node.add(name="x", op="Identity")
    added.input.append(output.name)
    output.name = "x:0"


def signature_that_returns_its_input(meta_graph):
    signature = meta_graph.signature_def["serving_default"]
    signature.outputs["y"].name = signature.inputs["images"].name


def signature_of_another_function(meta_graph):
    call = call_of_signature(meta_graph, "serving_default")
    others = meta_graph.graph_def.library.function
    call.attr["f"].func.name = next(
        each.signature.name
        for each in others
        if "signature_wrapper" not in each.signature.name
        and "traced" not in each.signature.name
    )


def signature_that_assigns_a_variable(meta_graph):
    nodes = meta_graph.graph_def.node
    variable = node(nodes, "VarHandleOp").name
    nodes.add(name="x", op="AssignVariableOp").input.extend([variable, variable])
    call_of_signature(meta_graph, "serving_default").input.append("^x")


def variable_with_a_control_input(meta_graph):
    nodes = meta_graph.graph_def.node
    names = call_of_signature(meta_graph, "serving_default").input
    variable = next(n for n in nodes if n.name in names and n.op == "VarHandleOp")
    nodes.add(name="x", op="NoOp")
    variable.input.append("^x")


def initializer_with_a_control_input(meta_graph):
    nodes = meta_graph.graph_def.node
    first = meta_graph.collection_def["saved_model_main_op"].node_list.value[0]
    nodes.add(name="x", op="NoOp")
    next(n for n in nodes if n.name == first).input.append("^x")


def object_that_is_a_resource(meta_graph):
    meta_graph.object_graph_def.nodes.add().resource.device = ""


def asset_outside_the_export(meta_graph):
    meta_graph.asset_file_def.add(filename="../../etc/passwd")


def class_of_keras(meta_graph):
    added = meta_graph.object_graph_def.nodes.add()
    added.user_object.identifier = "_tf_keras_model"


def registered_class(meta_graph):
    meta_graph.object_graph_def.nodes[0].registered_name = "Own>Class"


def queue_runner(meta_graph):
    meta_graph.collection_def["queue_runners"].bytes_list.value.append(b"a")


def constant_of_objects(meta_graph):
    added = meta_graph.graph_def.node.add(name="x", op="Const")
    added.attr["value"].tensor.dtype = types_pb2.DT_VARIANT


def function_in_an_attribute(meta_graph):
    added = meta_graph.graph_def.node.add(name="x", op="NoOp")
    added.attr["a"].list.func.add().attr["b"].func.name = "WriteFile"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (saver_by_another_node, "a call to the saver by x"),
        (saver_in_a_signature, "the saver in the signature save"),
        (saver_at_start, "the saver in the collection saved_model_main_op"),
        (saver_to_a_constant_path, "a file other than the given one"),
        (saver_with_another_suffix, "a file other than the given one"),
        (saver_with_a_separator, "a file other than the given one"),
        (two_savers_of_one_name, "two named __inference__traced_save"),
        (asset_with_terminal_escapes, r"the asset \\x1b\[2J"),
        (saver_to_another_input, "a file other than the given one"),
        (saver_to_a_path_of_its_own, "MergeV2Checkpoints.*SaveV2"),
        (saver_before_restoring, "the saver as input of"),
        (saver_as_a_method, "the saver as a method"),
        (saver_that_saves_when_it_restores, "not allowed.*MergeV2Checkpoints"),
        (restoring_from_a_constant, "a value that is not from a file in __inf"),
        (restoring_that_depends_on_the_file_name, "not allowed.*Select.*StaticRegex"),
        (restoring_from_itself, "a value that is not from a file in __inf"),
        (no_default_signature, "the signature serving_default in one place only"),
        (signature_without_a_function, "the signature more in one place only"),
        (signature_with_an_extra_node, "unexpected computation in the signature serv"),
        (
            signature_that_returns_its_input,
            "unexpected computation in the signature serving",
        ),
        (signature_of_another_function, "unexpected computation in the signature se"),
        (
            signature_that_assigns_a_variable,
            "unexpected computation in the signature",
        ),
        (variable_with_a_control_input, "unexpected computation in the signature"),
        (initializer_with_a_control_input, "the initializer NoOp"),
        (object_that_is_a_resource, "an object resource"),
        (asset_outside_the_export, "the asset ../../etc/passwd"),
        (class_of_keras, "an object _tf_keras_model"),
        (registered_class, "an object Own>Class"),
        (queue_runner, "the collection queue_runners"),
        (constant_of_objects, "a constant object x"),
        (function_in_an_attribute, "a call to WriteFile"),
    ],
)
def test_graph_beyond_computations_is_refused(change, words, model):
    with pytest.raises(RunError, match=words):
        inspection.require_plain(model(change))


def test_compiled_functions_are_refused(model):
    def change(meta_graph):
        called = meta_graph.graph_def.library.function[0]
        called.attr["_XlaMustCompile"].b = True

    with pytest.raises(RunError, match="holds compiled functions"):
        inspection.require_plain(model(change))


def link(path):
    (path / "variables").symlink_to("/etc")


def linked_file(path):
    (path / "variables").mkdir()
    (path / "variables" / "variables.index").symlink_to("/etc/hostname")


def pipe(path):
    os.mkfifo(path / "fingerprint.pb")


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda path: (path / "saved_model.pbtxt").touch(), "saved_model.pbtxt"),
        (lambda path: (path / "saved_model.cpb").touch(), "saved_model.cpb"),
        (lambda path: (path / "keras_metadata.pb").touch(), "keras_metadata.pb"),
        (lambda path: (path / "assets.extra" / "x").mkdir(parents=True), "extra/x"),
        (link, "variables"),
        (linked_file, "variables.index"),
        (pipe, "fingerprint.pb"),
    ],
)
def test_unexpected_files_are_refused(add, words, model):
    path = model(lambda meta_graph: None)
    add(path)
    with pytest.raises(RunError, match=f"holds unexpected files.*{words}"):
        inspection.require_plain(path)


def several(saved):
    saved.meta_graphs.add().CopyFrom(saved.meta_graphs[0])


def other_tags(saved):
    saved.meta_graphs[0].meta_info_def.tags[:] = ["serve", "gpu"]


def of_tensorflow_1(saved):
    saved.meta_graphs[0].ClearField("object_graph_def")


@pytest.mark.parametrize("change", [several, other_tags, of_tensorflow_1])
def test_other_graphs_are_refused(change, honest, tmp_path):
    saved = saved_model_pb2.SavedModel.FromString(honest)
    change(saved)
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(RunError, match="Expected one graph for serving"):
        inspection.require_plain(tmp_path)


def test_directory_without_a_graph_is_refused(tmp_path):
    with pytest.raises(
        RunError, match="is not a SavedModel. Expected a saved_model.pb"
    ):
        inspection.require_plain(tmp_path)


def test_damaged_or_huge_graphs_are_refused(tmp_path):
    file = tmp_path / "saved_model.pb"
    for content in (b"\x0a", b"\x12\x7f" * 50, b"\x13" * 200):
        file.write_bytes(content)
        with pytest.raises(RunError, match="is damaged|Expected one graph"):
            inspection.require_plain(tmp_path)
    with file.open("wb") as sparse:
        sparse.truncate(2**32)
    with pytest.raises(RunError, match="Expected at most .* bytes"):
        inspection.require_plain(tmp_path)


def test_allowed_operations_are_stateless():
    """TensorFlow defines them, and only variables, calls and checks have state."""
    stateful = operations.CALLS | operations.READS | operations.CHECKS
    allowed = operations.IN_FUNCTIONS - stateful
    assert allowed <= {*dir(tf.raw_ops)}
    graph = tf.Graph()
    assert not [name for name in allowed if graph.op_def_for_type(name).is_stateful]


@pytest.mark.parametrize(
    "hostile",
    [
        lambda file: tf.io.write_file(file, "a"),
        lambda file: ops.SaveV2(
            prefix=file, tensor_names=["a"], shape_and_slices=[""], tensors=[[1.0]]
        ),
        lambda file: (
            tf.data.Dataset.range(3)
            .cache(file)
            .reduce(tf.constant(0, tf.int64), tf.add)
        ),
        lambda file: tf.print("a", output_stream=f"file://{file}"),
    ],
)
def test_check_writes_nothing(hostile, tmp_path):
    """The models would write as soon as they are loaded or called."""
    path, file = tmp_path / "1", tmp_path / "written"

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.uint8)])
        def __call__(self, images):
            hostile(str(file))
            return images

    tf.saved_model.save(Hostile(), str(path))
    with pytest.raises(RunError, match="operations that are not allowed"):
        list(answers.check(path))
    assert os.listdir(tmp_path) == ["1"]
