"""Where a run computes: the tf.distribute strategies and their devices."""

NAMES = ("one", "mirrored")


def create(name: str, logical_cpus: int = 1):
    """The strategy called `name`.

    Args:
        name: `"one"`: the first GPU, or the CPU; `"mirrored"`: all GPUs, or all logical
            CPUs, with equal weights on each and gradients summed over them.
        logical_cpus: splits the CPU into this many devices, to try out `"mirrored"` on
            a machine without GPUs. Must come before TensorFlow touches a device.

    Returns:
        A `tf.distribute.Strategy`.
    """
    import tensorflow as tf  # only when there is something to compute

    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(logical_cpus)]
        tf.config.set_logical_device_configuration(cpu, parts)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices(
        "CPU"
    )
    names = [device.name for device in devices]
    if name == "one":
        return tf.distribute.OneDeviceStrategy(names[0])
    return tf.distribute.MirroredStrategy(names)
