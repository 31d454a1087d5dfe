"""Reads PyTorch files safely, and the arrays in them.

No code in a file is run, and nothing larger than its contents is allocated.
"""

import os
import re
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np

CONTAINERS = ("state_dict", "model")
PREFIXES = ("module.", "network.")
DEPTH = 8  # of nested containers; a dictionary may contain itself


def read_torch_file(path: str | os.PathLike) -> Mapping:
    """Returns the contents of a `.pth` file without running any code in it.

    Raises:
        ValueError: If the file is missing, damaged, not a checkpoint, or contains code.
        ImportError: If PyTorch is missing or older than 2.10 (whose reader could be
            made to run code, CVE-2025-32434, or to corrupt memory, CVE-2026-24747).
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"Expected the path of a checkpoint. Received: {path!r}.")
    needed = "Reading a .pth file needs PyTorch 2.10: pip install 'an-keras[convert]'."
    try:
        import torch
    except ImportError as error:
        raise ImportError(needed) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
        raise ImportError(f"{needed} Received: PyTorch {torch.__version__}.")
    _require_stored_members(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error suffices
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many undocumented types
        raise ValueError(f"{path!r} is refused: {_reason(str(error))}.") from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            "A checkpoint must hold a dictionary. "
            f"Received: {type(checkpoint).__name__} in {path!r}."
        )
    return checkpoint


def _require_stored_members(path):
    """Refuses compressed members: PyTorch writes none, but its reader unpacks them."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return  # an older format, or damaged
    if declared > os.path.getsize(path):
        raise ValueError(
            f"{path!r} is refused: its members declare {declared} bytes. Expected at "
            f"most the size of the file. Received: {os.path.getsize(path)}."
        )


def _reason(message: str) -> str:
    """Returns why PyTorch's reader failed, without its advice to trust the file."""
    if code := re.search(r"GLOBAL (\S+)|class (\S+) ", message):
        return (
            f"it refers to {code[1] or code[2]}, but only tensors and plain values are "
            "read; its author can save just the state_dict"
        )
    message = message.partition("WeightsUnpickler error: ")[2] or message
    line = (message.strip() or "empty").splitlines()[0]
    return f"it is damaged or not a checkpoint ({line[:200]})"


def state_dict(checkpoint: Mapping) -> dict[str, np.ndarray]:
    """Returns the arrays by key, without containers and prefixes of the keys.

    Raises:
        ValueError: If there are no arrays, some values are not arrays, or tensors hold
            fewer numbers than they have elements.
    """
    for _ in range(DEPTH):
        inner = [n for n in CONTAINERS if isinstance(checkpoint.get(n), Mapping)]
        if not inner:
            break
        checkpoint = checkpoint[inner[0]]
    strange = [
        printable(key)
        if isinstance(key, str)
        else f"a key of type {type(key).__name__}"
        for key, value in checkpoint.items()
        if not isinstance(key, str) or not _is_array(value)
    ]
    if strange or not checkpoint:
        raise ValueError(
            "A checkpoint must hold arrays by name. "
            f"Received: {', '.join(strange[:5]) or 'nothing'}."
        )
    arrays = dict(checkpoint)
    while prefix := [p for p in PREFIXES if all(key.startswith(p) for key in arrays)]:
        arrays = {key.removeprefix(prefix[0]): arrays[key] for key in arrays}
    _require_stored_numbers(arrays)
    return {key: _to_numpy(key, value) for key, value in arrays.items()}


def _is_array(value):
    # The shape of PyTorch's nested tensors does not raise AttributeError.
    return getattr(value, "is_nested", False) or hasattr(value, "shape")


def _require_stored_numbers(arrays):
    """Refuses tensors with more elements than the file stores.

    Tensors are views: any number of elements may share one number in the file.
    """
    declared, stored = 0, {}
    for key, value in arrays.items():
        if not hasattr(value, "untyped_storage"):
            continue
        if (
            str(value.layout) != "torch.strided"
            or value.is_quantized
            or value.is_meta
            or value.is_nested
        ):
            raise ValueError(
                f"A checkpoint must hold plain tensors. Received: {printable(key)}, "
                f"which is sparse, quantized, nested or without data."
            )
        declared += value.numel() * value.element_size()
        stored[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    if declared > sum(stored.values()):
        raise ValueError(
            f"A checkpoint must hold all data of its tensors, {declared} bytes. "
            f"Received: {sum(stored.values())}."
        )


def _to_numpy(key, value) -> np.ndarray:
    try:
        if hasattr(value, "detach"):  # a tensor; NumPy has no bfloat16
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        return np.asarray(value)
    except Exception as error:  # of many undocumented types
        raise ValueError(
            f"A checkpoint must hold plain tensors. Received: {printable(key)}: "
            f"{_reason(str(error))}."
        ) from error


def printable(key: str) -> str:
    """Formats a key for an error message."""
    return key if key.isprintable() and len(key) < 100 else repr(key[:100])
