"""Where a run computes: the tf.distribute strategies, their devices and workers."""

import contextlib
import functools
import json
import os
import re

from train.command import RunError, UsageError

NAMES = ("one", "mirrored", "multi_worker", "tpu")
ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})", re.IGNORECASE)
EXAMPLE = (
    'JSON such as {"cluster": {"worker": ["host0:22", "host1:22"]}, "task": {"type": '
    '"worker", "index": 0}} (tasks: chief, worker)'
)


def create(name: str, logical_cpus: int = 1, tpu: str | None = None):
    """The strategy called `name`.

    Args:
        name: `"one"`: the first GPU, or the CPU; `"mirrored"`: all GPUs, or all logical
            CPUs, with equal weights on each and gradients summed over them;
            `"multi_worker"`: the same over the processes that the environment variable
            TF_CONFIG lists; `"tpu"`: all cores of a TPU.
        logical_cpus: splits the CPU into this many devices, to try out `"mirrored"` on
            a machine without GPUs. Must come before TensorFlow touches a device.
        tpu: name or address of the TPU, `"local"` on its own machine; for `"tpu"`.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        UsageError: arguments or TF_CONFIG that do not fit the strategy.
        RunError: there is no TPU at this address.
    """
    if logical_cpus > 1 and name != "mirrored":
        raise UsageError(
            "Expected --logical_cpus with --strategy=mirrored only. "
            f"Received: --strategy={name} --logical_cpus={logical_cpus}."
        )
    if tpu == "" or (tpu is None) != (name != "tpu"):
        raise UsageError(
            "Expected --tpu=ADDRESS with --strategy=tpu, and only there. "
            f"Received: --strategy={name}, --tpu={tpu}."
        )
    others = None if name == "tpu" else _other_tasks(os.environ.get("TF_CONFIG", ""))
    if name == "multi_worker":
        if others is None:
            raise UsageError(
                "--strategy=multi_worker needs the environment variable TF_CONFIG with "
                f"a cluster. Expected {EXAMPLE}. "
                f"Received: {os.environ.get('TF_CONFIG')!r}."
            )
        print(f"waiting  for {', '.join(others) or 'no other worker'}", flush=True)
    elif others:
        raise UsageError(
            "TF_CONFIG lists several workers. Expected --strategy=multi_worker, or no "
            f"TF_CONFIG. Received: --strategy={name}."
        )

    import tensorflow as tf  # only when there is something to compute

    if name != "one":
        # It merges operations behind the sum over the replicas on one of them only,
        # which rounds otherwise: their equal weights would drift apart.
        options = {"arithmetic_optimization": False}
        tf.config.optimizer.set_experimental_options(options)
    if name == "multi_worker":
        return _join(tf.distribute.MultiWorkerMirroredStrategy)
    if name == "tpu":
        return _connect(tpu)
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(logical_cpus)]
        tf.config.set_logical_device_configuration(cpu, parts)
    gpus = tf.config.list_logical_devices("GPU")
    if gpus and logical_cpus > 1:
        raise UsageError(
            "Expected --logical_cpus on a machine without GPUs only. "
            f"Received: {len(gpus)} GPUs."
        )
    devices = gpus or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    if name == "one":
        return tf.distribute.OneDeviceStrategy(names[0])
    return tf.distribute.MirroredStrategy(names)


def _other_tasks(text) -> list[str] | None:
    """Addresses of the other processes in TF_CONFIG; `None`: it has no cluster.

    Raises:
        UsageError: its cluster cannot be used.
    """
    try:
        config = json.loads(text) if text.strip() else {}
        _require_kind(config, dict, "TF_CONFIG")
        cluster = config.get("cluster", {})
        _require_kind(cluster, dict, "cluster")
        if not cluster:
            return None
        addresses = _addresses(cluster)
        task = config.get("task")
        _require_kind(task, dict, "task")
        kind, index = task.get("type"), task.get("index")
        _require_kind(kind, str, "task.type")
        _require_kind(index, int, "task.index")
        if kind not in cluster or not 0 <= index < len(cluster[kind]):
            raise ValueError(f"the cluster has no {kind} of index {index}")
    except (RecursionError, ValueError) as error:
        raise UsageError(
            f"The environment variable TF_CONFIG cannot be used: {error}. "
            f"Expected {EXAMPLE}, or none without --strategy=multi_worker. "
            f"Received: {text!r}."
        ) from error
    return [each for each in addresses if each != cluster[kind][index]]


def _addresses(cluster):
    """Of all tasks, each once.

    Raises:
        ValueError: what is wrong with them.
    """
    if not {*cluster} <= {"chief", "worker"}:
        raise ValueError(f"it has tasks of other kinds: {', '.join(cluster)}")
    found = {}
    for kind, tasks in cluster.items():
        _require_kind(tasks, list, f"cluster.{kind}")
        for address in tasks:
            _require_kind(address, str, f"an address of cluster.{kind}")
            match = ADDRESS.fullmatch(address)
            if not match or not 1 <= int(match[2]) <= 65535:
                raise ValueError(f"{address!r} is no HOST:PORT")
            key = match[1].lower(), int(match[2])
            if key in found:
                raise ValueError(f"{address} is there twice")
            found[key] = address
    if len(cluster.get("chief", ())) > 1:
        raise ValueError("it has more than one chief")
    return list(found.values())


def _require_kind(value, kind, name):
    words = {dict: "an object", list: "a list", str: "a string"}
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = words.get(kind, "a whole number")
        raise ValueError(f"{name} must be {expected}, and is {json.dumps(value)}")


def _join(strategy):
    import tensorflow as tf

    try:
        return strategy()
    except tf.errors.OpError as error:
        raise RunError(
            "This worker cannot join the others. Expected its own address in TF_CONFIG "
            f"to be free. Received: {error.message.splitlines()[0]}"
        ) from error


def _connect(address):
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"No TPU at --tpu={address}: {reason}") from error
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy) -> bool:
    """Whether this process is the one that writes files."""
    return strategy.extended.should_checkpoint


def worker(strategy) -> tuple[int, int]:
    """The number of this process, from 0, and how many processes train together."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type not in ("chief", "worker"):
        return 0, 1  # one process, also where it drives the hosts of a TPU
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    first = chiefs if resolver.task_type == "worker" else 0
    return first + resolver.task_id, chiefs + workers


def gather(strategy, number: int) -> list[int]:
    """A number of every process that trains; all wait for each other here."""
    import tensorflow as tf

    if worker(strategy)[1] == 1:
        return [number]
    copies = _gather(strategy)(tf.constant([number], tf.int64)).numpy()
    return copies[:: len(copies) // worker(strategy)[1]].tolist()


@functools.cache
def _gather(strategy):
    import tensorflow as tf

    @tf.function
    def gather(value):
        return strategy.gather(strategy.run(tf.identity, args=(value,)), axis=0)

    return gather


@contextlib.contextmanager
def together(strategy):
    """Within it the end of another process of the run ends this one, too.

    Raises:
        RunError: the others are gone.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        number, workers = worker(strategy)
        _, is_aborted, reason = error.message.partition("Collective ops is aborted by:")
        if workers == 1 or not is_aborted:
            raise
        raise RunError(
            f"Worker {number} of {workers} lost the others. Expected all to stay until "
            "the end. Start all again with the same commands to go on. "
            f"Received: {' '.join(reason.splitlines()[:2])}"
        ) from error
