"""Pieces that the networks share: input, convolution with explicit padding, head."""

import keras
from keras import layers


def channel_axis() -> int:
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def image_input(input_tensor, input_shape, default: tuple, smallest: int):
    """The input of a network, as in Keras Applications.

    Args:
        input_tensor: `None`, a Keras tensor, or a backend tensor.
        input_shape: `None` for `default`, or (height, width, channels) in the order
            of the image data format; height and width may be `None`.
        default: (height, width, channels).
        smallest: the least height and width, pixels.

    Raises:
        ValueError: another rank, no static channels, or an image that is too small.
    """
    if input_tensor is not None and not keras.utils.is_keras_tensor(input_tensor):
        input_tensor = layers.Input(tensor=input_tensor)
    channels_first = channel_axis() == 1
    if input_tensor is not None:
        input_shape = input_tensor.shape[1:]
    elif input_shape is None:
        input_shape = (default[2], *default[:2]) if channels_first else default
    input_shape = tuple(input_shape)
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). "
            f"Received: input_shape={input_shape}."
        )
    sizes = input_shape[1:] if channels_first else input_shape[:2]
    channels = input_shape[0] if channels_first else input_shape[2]
    if channels is None or any(size is not None and size < smallest for size in sizes):
        raise ValueError(
            f"`input_shape` must have a height and width of at least {smallest} pixels "
            f"and static channels. Received: input_shape={input_shape}."
        )
    return layers.Input(input_shape) if input_tensor is None else input_tensor


def source(inputs):
    """What a model with these inputs is called with: the layers before them count."""
    sources = keras.utils.get_source_inputs(inputs)
    return sources[0] if len(sources) == 1 else sources


def conv(x, filters: int, kernel_size: int, stride: int = 1, *, name: str):
    """Convolution without bias, padded by (kernel_size - 1) // 2 on every side.

    Keras' "same" pads unevenly at stride 2; other frameworks' weights mean this one.
    Initialized as published: He normal over the fan out.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D((kernel_size - 1) // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        name=name,
    )(x)


def head(x, include_top, pooling, classes, classifier_activation):
    """Global average and classifier, or what `pooling` says, as in Keras Applications.

    Kernel and bias start uniform in +-1/sqrt(features), as published.

    Raises:
        ValueError: `pooling` is none of `None`, "avg", "max", or `classes` is < 1.
    """
    if include_top:
        if not isinstance(classes, int) or classes < 1:
            raise ValueError(
                f"`classes` must be an int >= 1. Received: classes={classes!r}."
            )
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        bound = x.shape[-1] ** -0.5
        kernel, bias = (
            keras.initializers.RandomUniform(-bound, bound) for _ in range(2)
        )
        return layers.Dense(
            classes,
            activation=classifier_activation,
            kernel_initializer=kernel,
            bias_initializer=bias,
            dtype="float32",
            name="predictions",
        )(x)
    pools = {
        None: lambda x: x,
        "avg": layers.GlobalAveragePooling2D(name="avg_pool"),
        "max": layers.GlobalMaxPooling2D(name="max_pool"),
    }
    if pooling not in pools:
        raise ValueError(
            f"`pooling` must be None, 'avg' or 'max'. Received: pooling={pooling!r}."
        )
    return pools[pooling](x)
