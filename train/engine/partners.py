"""Finds the other processes of a run before TensorFlow waits for them.

TensorFlow waits forever for a worker that never starts, does not report which one, and
blocks all other threads of the process meanwhile. So plain sockets check first: each
worker listens at its own address until all the others answer at theirs.
"""

import json
import re
import socket
import time
from collections.abc import Mapping

from train.cli import RunError, UsageError

INTERVAL = 0.5  # seconds between two attempts
ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})", re.IGNORECASE)
EXAMPLE = (
    'JSON such as {"cluster": {"worker": ["host0:22", "host1:22"]}, "task": {"type": '
    '"worker", "index": 0}} (tasks: chief, worker)'
)


def read_cluster(environment: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """Returns this process's address and the others of TF_CONFIG's cluster, if any.

    Raises:
        UsageError: If its cluster cannot be used.
    """
    text = environment.get("TF_CONFIG", "")
    try:
        config = json.loads(text) if text.strip() else {}
        _require_kind(config, dict, "TF_CONFIG")
        cluster = config.get("cluster", {})
        _require_kind(cluster, dict, "cluster")
        if config.get("rpc_layer") not in (None, "", "grpc"):
            raise ValueError(f"its rpc_layer is {json.dumps(config['rpc_layer'])}")
        if not cluster:
            return None
        addresses = _addresses(cluster)
        task = config.get("task")
        _require_kind(task, dict, "task")
        kind, index = task.get("type"), task.get("index")
        _require_kind(kind, str, "task.type")
        _require_kind(index, int, "task.index")
        if kind not in cluster or not 0 <= index < len(cluster[kind]):
            raise ValueError(f"the cluster has no {kind} with index {index}")
    except (RecursionError, ValueError) as error:
        raise UsageError(
            f"The environment variable TF_CONFIG cannot be used: {error}. "
            f"Expected {EXAMPLE}, or no TF_CONFIG without --strategy=multi_worker. "
            f"Received: {text!r}."
        ) from error
    own = cluster[kind][index]
    return own, [each for each in addresses if each != own]


def _addresses(cluster):
    """Returns the addresses of all tasks, each once.

    Raises:
        ValueError: If they are invalid. The message says why.
    """
    if not {*cluster} <= {"chief", "worker"}:
        raise ValueError(f"it has tasks of other kinds: {', '.join(cluster)}")
    found = {}
    for kind, tasks in cluster.items():
        _require_kind(tasks, list, f"cluster.{kind}")
        for address in tasks:
            _require_kind(address, str, f"an address of cluster.{kind}")
            match = ADDRESS.fullmatch(address)
            if not match or not _is_host(match[1]) or not 1 <= int(match[2]) <= 65535:
                raise ValueError(f"{address!r} is not HOST:PORT")
            key = match[1].lower(), int(match[2])
            if key in found:
                raise ValueError(f"{address} is listed twice")
            found[key] = address
    if len(cluster.get("chief", ())) > 1:
        raise ValueError("it has more than one chief")
    return list(found.values())


def _is_host(name):
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _require_kind(value, kind, name):
    words = {dict: "an object", list: "a list", str: "a string"}
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = words.get(kind, "a whole number")
        raise ValueError(f"{name} must be {expected}, but is {json.dumps(value)}")


def find(own: str, others: list[str], limit: float) -> None:
    """Waits until all other processes of the run listen or have started.

    Args:
        own: `host:port` of this process.
        others: `host:port` of each other process.
        limit: Seconds to wait.

    Raises:
        RunError: If some are missing after that time, one is this process itself, or
            the port of this process is taken.
    """
    end = time.monotonic() + limit
    with _listening(int(own.rpartition(":")[2])):
        while missing := [each for each in others if not _answers(each, own)]:
            if time.monotonic() > end:
                raise RunError(
                    f"The worker at {own} has not found all the others. Expected "
                    f"them to start within {limit:g} s (--join_timeout). Received "
                    f"no answer from {', '.join(missing)}."
                )
            time.sleep(INTERVAL)


def _answers(address, own):
    """Returns whether another process listens at `address`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), 5) as connection:
            here, there = connection.getsockname()[0], connection.getpeername()[0]
    except OSError:
        return False
    if here == there and port == own.rpartition(":")[2]:
        raise RunError(
            "TF_CONFIG lists this process twice. Expected a separate address for each "
            f"worker. Received: {own} and {address}."
        )
    return True


def _listening(port):
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=is_dual)
    except OSError as error:
        raise RunError(
            "This worker cannot join the others. Expected its own address in TF_CONFIG "
            f"to be free. Received: port {port}: {error}."
        ) from error
