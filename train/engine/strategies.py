"""The tf.distribute strategies of a run, their devices and workers."""

import contextlib
import faulthandler
import functools
import math
import os
import subprocess

from absl import flags

from train.cli import RunError, UsageError
from train.engine import partners

flags.disclaim_key_flags()  # they belong to the command that defines them
JOINING = 120.0  # seconds for TensorFlow, once all workers answer
NAMES = ("one", "mirrored", "multi_worker", "tpu")


def DEFINE_devices():
    """Defines the flags that are the arguments of `create`."""
    flags.DEFINE_enum("strategy", "one", NAMES, "Devices to train on.")
    flags.DEFINE_float(
        "join_timeout", 600.0, "Seconds to wait for the other workers.", lower_bound=0
    )
    flags.DEFINE_string("tpu", None, "Name or address of the TPU; local: this machine.")
    flags.DEFINE_integer(
        "logical_cpus", 1, "Splits the CPU into this many devices.", 1, 1024
    )


def create(
    name: str,
    logical_cpus: int = 1,
    tpu: str | None = None,
    join_timeout: float = 600.0,
):
    """Creates the strategy called `name`.

    Args:
        name: Name of the strategy. `"one"`: the first GPU, or the CPU. `"mirrored"`:
            all GPUs, or all logical CPUs, with equal weights on each and gradients
            summed over them. `"multi_worker"`: the same over the processes that the
            environment variable TF_CONFIG lists. `"tpu"`: all cores of a TPU.
        logical_cpus: Number of devices to split the CPU into, to try out `"mirrored"`
            on a machine without GPUs. Must be set before TensorFlow touches a device.
        tpu: Name or address of the TPU for `"tpu"`; `"local"` on the TPU's machine.
        join_timeout: Seconds to wait for the other processes of `"multi_worker"`.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        UsageError: If the arguments or TF_CONFIG do not match the strategy.
        RunError: If there is no TPU at this address, or other processes do not start.
    """
    if logical_cpus > 1 and name != "mirrored":
        raise UsageError(
            "Expected --logical_cpus with --strategy=mirrored only. "
            f"Received: --strategy={name} --logical_cpus={logical_cpus}."
        )
    if math.isnan(join_timeout):
        raise UsageError(
            f"Expected seconds in --join_timeout. Received: {join_timeout}."
        )
    if tpu == "" or (tpu is None) != (name != "tpu"):
        raise UsageError(
            "Expected --tpu=ADDRESS with --strategy=tpu, and only there. "
            f"Received: --strategy={name}, --tpu={tpu}."
        )
    cluster = None if name == "tpu" else partners.read_cluster(os.environ)
    own, others = cluster or ("", [])
    if name == "multi_worker":
        if not cluster:
            raise UsageError(
                "--strategy=multi_worker needs the environment variable TF_CONFIG with "
                f"a cluster. Expected {partners.EXAMPLE}. "
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
        # This optimization merges operations after the sum over the replicas on one of
        # them only. They are then rounded differently, and equal weights drift apart.
        options = {"arithmetic_optimization": False}
        tf.config.optimizer.set_experimental_options(options)
    if name == "multi_worker":
        partners.find(own, others, join_timeout)
        return _join(own, others)
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


def _join(own, others):
    import tensorflow as tf

    try:
        with _watched(
            f"error: The worker at {own} has not joined the others within "
            f"{JOINING:.0f} s. Expected workers of this run at {', '.join(others)}; "
            "another program may be listening there. Start all again with the same "
            "commands."
        ):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise RunError(
            "This worker cannot join the others. Expected its own address in TF_CONFIG "
            f"to be free. Received: {error.message.splitlines()[0]}"
        ) from error


@contextlib.contextmanager
def _watched(message):
    """Ends the process with this message if TensorFlow waits indefinitely.

    TensorFlow waits for a worker that dies at this moment, or for another program in
    its place, and blocks all other Python threads meanwhile. `faulthandler` needs no
    Python thread; its output makes a separate program print the message.
    """
    program = 'read -r _ && printf "%s\\n" "$0" >&2; cat > /dev/null'
    say = ["sh", "-c", program, message]
    with subprocess.Popen(say, stdin=subprocess.PIPE) as echo:
        faulthandler.dump_traceback_later(JOINING, exit=True, file=echo.stdin)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


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
    """Returns whether this process is the one that writes files."""
    return strategy.extended.should_checkpoint


def worker(strategy) -> tuple[int, int]:
    """Returns this process's index, from 0, and how many processes train together."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type not in ("chief", "worker"):
        return 0, 1  # one process, even if it controls the hosts of a TPU
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    first = chiefs if resolver.task_type == "worker" else 0
    return first + resolver.task_id, chiefs + workers


def gather(strategy, number: int) -> list[int]:
    """Gathers a number from every process that trains; all wait for each other."""
    import tensorflow as tf

    if worker(strategy)[1] == 1:
        return [number]
    copies = _gather(strategy)(tf.constant([number], tf.int64)).numpy()
    return copies[:: len(copies) // worker(strategy)[1]].tolist()


def of_chief(strategy, number: int) -> int:
    """Returns the first process's number, since the others may see other files."""
    return gather(strategy, number)[0]


@functools.cache
def _gather(strategy):
    import tensorflow as tf

    @tf.function
    def gather(value):
        return strategy.gather(strategy.run(tf.identity, args=(value,)), axis=0)

    return gather


@contextlib.contextmanager
def together(strategy):
    """Context that ends with an error if another process of the run ends.

    Raises:
        RunError: If the other processes are gone.
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
            f"Worker {number} of {workers} lost the others. Expected all to run until "
            "training ends. Start all again with the same commands to resume. "
            f"Received: {' '.join(reason.splitlines()[:2])}"
        ) from error
