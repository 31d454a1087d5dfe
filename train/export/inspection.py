"""Inspects the files of an export without loading or running anything in it."""

import fnmatch
import os
import pathlib
import stat
from collections import Counter
from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from train.cli import RunError
from train.export import operations, runtimes

LARGEST_GRAPH = 2**28  # bytes; the weights are in other files
# TensorFlow would also load a saved_model.pbtxt or saved_model.cpb.
FILES = (
    *runtimes.FILES.values(),
    *("model.bin", "fingerprint.pb"),
    *("variables/variables.index", "variables/variables.data-?????-of-?????"),
    *("assets/labels.txt", "assets/model.json"),
    "assets.extra/tf_serving_warmup_requests",
)
FOLDERS = ("variables", "assets", "assets.extra")
# Allowed kinds of Python objects: no registered classes, files or initializers.
OBJECTS = (
    *("variable", "function", "bare_concrete_function", "constant", "user_object"),
    "captured_tensor",  # from another function's graph, as in the gradient of swish
)
CLASSES = (
    *("_generic_user_object", "signature_map", "trackable_dict_wrapper"),
    *("trackable_list_wrapper", "trackable_tuple_wrapper"),
)
REGISTERED = ("", "tf.TrackableConstant")  # by TensorFlow itself
COMPILED = ("_XlaMustCompile", "_XlaCompile")
INITIALIZER = "__saved_model_init_op"
SOURCES = ("Const", "Placeholder", "VarHandleOp")
# Number of inputs that are file names, by operation; operations on file names.
NAMES_OF_FILES = {"SaveV2": 1, "RestoreV2": 1, "MergeV2Checkpoints": 2}
OF_NAMES = ("Identity", "Pack", "Select", "ShardedFilename", "StringJoin")
SUFFIXES = {b".part", b"_temp/part"}


def require_plain(path: pathlib.Path) -> int:
    """Checks that an export holds nothing but computations on tensors.

    Functions that XLA must compile are refused: TensorFlow Serving disables XLA on CPUs
    and rejects such models.

    Returns:
        The number of kinds of operations in it.

    Raises:
        RunError: If it has a file, an operation or an object that is not allowed.
    """
    if not (path / "saved_model.pb").is_file():
        raise RunError(
            f"{path} is not a SavedModel. Expected a saved_model.pb in it, as in "
            "RUN/export/STEP."
        )
    _require_known_files(path)
    meta_graph = _read(path / "saved_model.pb")
    graph = meta_graph.graph_def
    functions = {each.signature.name: each for each in graph.library.function}
    _require_no_compiled(path, graph)
    savers = _savers(meta_graph)
    restores = {
        name
        for name, caller in savers.items()
        if caller == meta_graph.saver_def.restore_op_name
    }
    _refuse(
        f"{path} contains operations that are not allowed",
        "those of train/export/operations.py",
        _other_operations(graph, savers, restores),
    )
    _refuse(
        f"{path} contains more than computations on tensors",
        "variables, functions, and files only through TensorFlow's saver",
        [
            *_of_one_name(graph),
            *_other_objects(meta_graph),
            *_other_calls(graph, functions, savers),
            *_other_uses(meta_graph, savers),
            *_other_signatures(meta_graph),
            *_other_names(functions, savers),
            *_other_values(functions, restores),
        ],
    )
    return len({node.op for _, nodes in _bodies(graph) for node in nodes})


def _refuse(what: str, expected: str, found: Iterable[str]) -> None:
    found = sorted(set(found))
    if found:
        named = ", ".join(ascii(each)[:200] for each in found[:5])  # untrusted names
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise RunError(f"{what}. Expected: {expected}. Received: {named}{more}.")


def _require_known_files(path):
    def fail(error):
        raise error

    found = []
    for parent, folders, files in os.walk(path, onerror=fail):
        for name in (*folders, *files):
            entry = pathlib.Path(parent, name)
            relative, mode = entry.relative_to(path), entry.lstat().st_mode
            if stat.S_ISDIR(mode):
                known = relative.as_posix() in FOLDERS
            else:
                known = stat.S_ISREG(mode) and any(
                    fnmatch.fnmatchcase(relative.as_posix(), file) for file in FILES
                )
            if not known:
                found.append(relative.as_posix())
    _refuse(f"{path} holds unexpected files", "regular files of an export", found)


def _read(file: pathlib.Path) -> meta_graph_pb2.MetaGraphDef:
    size = file.stat().st_size
    if size > LARGEST_GRAPH:
        raise RunError(
            f"{file} is too large for a graph. Expected at most {LARGEST_GRAPH} bytes. "
            f"Received: {size}."
        )
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise RunError(
            f"{file} is damaged. Expected a SavedModel. Received: {error}."
        ) from error
    tags = [sorted(each.meta_info_def.tags) for each in saved.meta_graphs]
    if tags != [["serve"]] or not saved.meta_graphs[0].object_graph_def.nodes:
        raise RunError(
            f"{file} is not a TensorFlow 2 SavedModel. Expected one graph for serving "
            f"and its objects. Received: graphs for {tags}."
        )
    return saved.meta_graphs[0]


def _bodies(graph: graph_pb2.GraphDef) -> Iterator[tuple[str, Iterable]]:
    """Yields (name, nodes) of the graph, whose name is empty, and its functions."""
    yield "", graph.node
    for function in graph.library.function:
        yield function.signature.name, function.node_def


def _require_no_compiled(path, graph):
    attributes = [
        *((each.signature.name, each.attr) for each in graph.library.function),
        *((node.name, node.attr) for _, nodes in _bodies(graph) for node in nodes),
    ]
    compiled = {name for name, attr in attributes if _is_compiled(attr)}
    _refuse(
        f"{path} holds compiled functions",
        "none: TensorFlow Serving refuses them on a CPU",
        compiled,
    )


def _is_compiled(attributes):
    return any(key in attributes and attributes[key].b for key in COMPILED) or any(
        _is_compiled(function.attr)
        for value in attributes.values()
        for function in (value.func, *value.list.func)
    )


def _savers(meta_graph) -> dict[str, str]:
    """Returns {function that writes or reads variables: the only node calling it}."""
    saver, nodes = meta_graph.saver_def, meta_graph.graph_def.node
    callers = {saver.save_tensor_name.split(":")[0], saver.restore_op_name}
    file = _file(saver)
    if not any(node.name == file and node.op == "Placeholder" for node in nodes):
        return {}
    return {
        node.attr["f"].func.name: node.name
        for node in nodes
        if node.name in callers
        and node.op in ("PartitionedCall", "StatefulPartitionedCall")
        and node.input[:1] in ([file], [f"{file}:0"])
    }


def _file(saver):
    return saver.filename_tensor_name.split(":")[0]


def _other_operations(graph, savers, restores):
    for name, nodes in _bodies(graph):
        allowed = operations.IN_FUNCTIONS if name else operations.IN_GRAPH
        if name in savers:
            is_restore = name in restores
            allowed = operations.IN_RESTORE if is_restore else operations.IN_SAVE
        yield from (node.op for node in nodes if node.op not in allowed)


def _of_one_name(graph):
    """Yields duplicate names of functions and nodes; only one would be inspected."""
    bodies = [*_bodies(graph)]
    for names in (
        [name for name, _ in bodies],
        *([node.name for node in nodes] for _, nodes in bodies),
    ):
        yield from (f"two named {name}" for name, n in Counter(names).items() if n > 1)


def _other_objects(meta_graph):
    """Yields objects, constants and lists that can hold more than numbers and text."""
    for node in meta_graph.object_graph_def.nodes:
        kind, of = node.WhichOneof("kind"), node.user_object.identifier
        if kind not in OBJECTS or (kind == "user_object" and of not in CLASSES):
            yield f"an object {of or kind}"
        has_saver = node.registered_saver or node.saveable_objects
        if node.registered_name not in REGISTERED or has_saver:
            yield f"an object {node.registered_name or node.registered_saver or kind}"
    yield from (f"the asset {a.filename}" for a in meta_graph.asset_file_def)
    lists = set(meta_graph.collection_def) - {"saved_model_main_op"}
    yield from (f"the collection {name}" for name in lists)
    for _, nodes in _bodies(meta_graph.graph_def):
        for node in nodes:
            for value in node.attr.values():
                for tensor in (value.tensor, *value.list.tensor):
                    if tensor.dtype in (types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT):
                        yield f"a constant object {node.name}"


def _other_calls(graph, functions, savers):
    """Yields calls to missing functions and unexpected calls to the saver."""
    for body, nodes in _bodies(graph):
        for node in nodes:
            for name in _called(node.attr):
                if name not in functions:
                    yield f"a call to {name}"
                if name in savers and (body, node.name) != ("", savers[name]):
                    yield f"a call to the saver by {node.name}"
    library = graph.library
    gradients = (*library.gradient, *library.registered_gradients)
    for name in {each.gradient_func for each in gradients} & set(savers):
        yield f"the saver as a gradient: {name}"


def _called(attributes):
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
            yield from _called(function.attr)


def _other_uses(meta_graph, savers):
    """Yields all other ways in which a request could run the saver."""
    file, callers = _file(meta_graph.saver_def), {*savers.values()}
    own = {file, *callers}
    for node in meta_graph.graph_def.node:
        used = {name.lstrip("^").split(":")[0] for name in node.input} & own
        if used - {file} or (used and node.name not in callers):
            yield f"the saver as input of {node.name}"
    for name, signature in meta_graph.signature_def.items():
        tensors = (*signature.inputs.values(), *signature.outputs.values())
        if any(tensor.name.split(":")[0] in own for tensor in tensors):
            yield f"the saver in the signature {name}"
        if any(tensor.WhichOneof("encoding") != "name" for tensor in tensors):
            yield f"a non-tensor in the signature {name}"
    for name, values in meta_graph.collection_def.items():
        if {value.split(":")[0] for value in values.node_list.value} & own:
            yield f"the saver in the collection {name}"
    objects = meta_graph.object_graph_def
    named = {*objects.concrete_functions}
    for node in objects.nodes:
        named |= {*node.function.concrete_functions}
        named.add(node.bare_concrete_function.concrete_function_name)
    yield from (f"the saver as a method: {name}" for name in named & set(savers))


def _other_signatures(meta_graph):
    """Yields served signatures that differ from those of the objects.

    Only the signatures of the objects are checked, but a server runs nodes of the
    graph. For each signature, the node must be a call to its function with unchanged
    variables and constants; another node could assign a variable.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    methods = _methods(meta_graph.object_graph_def)
    served = {
        name: signature
        for name, signature in meta_graph.signature_def.items()
        if name != INITIALIZER
    }
    for name in methods.keys() ^ served.keys():
        yield f"the signature {name} in one place only"
    for name in methods.keys() & served.keys():
        inputs, outputs = served[name].inputs, served[name].outputs
        callers = {tensor.name.split(":")[0] for tensor in outputs.values()}
        caller = nodes.get(next(iter(callers), ""))
        given = [inputs[key].name.split(":")[0] for key in sorted(inputs)]
        if (
            len(callers) != 1
            or caller is None
            or caller.op not in ("PartitionedCall", "StatefulPartitionedCall")
            or caller.attr["f"].func.name != methods[name]
            or [outputs[key].name for key in sorted(outputs)]
            != [f"{caller.name}:{number}" for number in range(len(outputs))]
            or [each.split(":")[0] for each in caller.input[: len(given)]] != given
            or not all(_is_source(nodes.get(each)) for each in caller.input)
        ):
            yield f"an unexpected computation in the signature {name}"
    first = [
        *(t.name for t in meta_graph.signature_def[INITIALIZER].outputs.values()),
        *meta_graph.collection_def["saved_model_main_op"].node_list.value,
    ]
    for name in {each.split(":")[0] for each in first}:
        if name not in nodes or nodes[name].op != "NoOp" or nodes[name].input:
            yield f"the initializer {name}"


def _methods(objects):
    """Returns {signature: name of its function} of the objects."""
    children = {c.local_name: c.node_id for c in objects.nodes[0].children}
    number = children.get("signatures", -1)
    if not 0 <= number < len(objects.nodes):
        return {}
    return {
        child.local_name: objects.nodes[
            child.node_id
        ].bare_concrete_function.concrete_function_name
        for child in objects.nodes[number].children
        if 0 <= child.node_id < len(objects.nodes)
    }


def _is_source(node):
    return node is not None and node.op in SOURCES and not node.input


def _other_names(functions, savers):
    """Yields functions of the saver that use other files than the given one."""
    for function in (functions[name] for name in savers if name in functions):
        nodes = {node.name: node for node in function.node_def}
        given = [argument.name for argument in function.signature.input_arg][:1]
        seen, left = set(given), []
        for node in function.node_def:
            left += node.input[: NAMES_OF_FILES.get(node.op, 0)]
        while left:
            name = left.pop().split(":")[0]
            if name in seen or name.startswith("^"):
                continue
            seen.add(name)
            node = nodes.get(name)
            if node is None or not _is_part_of_a_name(node):
                yield f"a file other than the given one in {function.signature.name}"
                break
            if node.op != "StaticRegexFullMatch":
                left += node.input


def _other_values(functions, restores):
    """Yields functions that assign variables a value not read from the files."""
    for function in (functions[name] for name in restores if name in functions):
        nodes = {node.name: node for node in function.node_def}
        for node in function.node_def:
            if node.op == "AssignVariableOp" and not _is_read(nodes, node.input[1:2]):
                yield f"a value that is not from a file in {function.signature.name}"


def _is_read(nodes, inputs):
    """Returns whether an input is an unchanged output of RestoreV2."""
    seen = set()
    while inputs:
        node = nodes.get(inputs[0].split(":")[0])
        if node is None or node.op != "Identity" or node.name in seen:
            return node is not None and node.op == "RestoreV2"
        seen.add(node.name)
        inputs = node.input[:1]
    return False


def _is_part_of_a_name(node):
    if node.op == "Const":
        tensor = node.attr["value"].tensor
        return set(tensor.string_val) <= SUFFIXES and (
            tensor.dtype != types_pb2.DT_STRING or not tensor.tensor_content
        )
    has_separator = "separator" in node.attr and node.attr["separator"].s
    return node.op in (*OF_NAMES, "StaticRegexFullMatch") and not has_separator
