"""Blocks shared by the networks: input, convolutions with explicit padding, head."""

import functools
import numbers

import keras
from keras import layers

from an_keras import arguments

HEAD = "predictions"


def channel_axis() -> int:
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def data_format(shape: tuple) -> tuple:
    """Returns (height, width, channels) in the order of Keras' image data format."""
    return shape if channel_axis() == -1 else (shape[2], *shape[:2])


def image_input(input_tensor, input_shape, default: tuple, smallest: int):
    """Returns the input of a network, as in Keras Applications.

    Args:
        input_tensor: `None`, a Keras tensor, or a backend tensor.
        input_shape: `None` for `default`, or (height, width, channels) in the order
            of the image data format; height and width may be `None`.
        default: (height, width, channels).
        smallest: Minimum height and width, in pixels.

    Raises:
        ValueError: If the rank is wrong, the channels are not static, or the image is
            too small.
    """
    if input_tensor is not None and not keras.utils.is_keras_tensor(input_tensor):
        input_tensor = layers.Input(tensor=input_tensor)
    channels_first = channel_axis() == 1
    if input_tensor is not None:
        input_shape = input_tensor.shape[1:]
    elif input_shape is None:
        input_shape = data_format(default)
    known = isinstance(input_shape, (tuple, list)) and all(
        size is None or isinstance(size, numbers.Integral) for size in input_shape
    )
    if not known or len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). "
            f"Received: input_shape={input_shape}."
        )
    input_shape = tuple(input_shape)
    sizes = input_shape[1:] if channels_first else input_shape[:2]
    channels = input_shape[0] if channels_first else input_shape[2]
    if (
        not channels
        or channels < 1
        or any(size is not None and size < smallest for size in sizes)
    ):
        raise ValueError(
            f"`input_shape` must have a height and width of at least {smallest} pixels "
            f"and static channels. Received: input_shape={input_shape}."
        )
    return layers.Input(input_shape) if input_tensor is None else input_tensor


def source(inputs):
    """Returns the inputs of a model that includes the layers before these tensors."""
    sources = keras.utils.get_source_inputs(inputs)
    return sources[0] if len(sources) == 1 else sources


@keras.saving.register_keras_serializable(package="model_zoo")
class GroupedConv2D(layers.Conv2D):
    """`keras.layers.Conv2D` whose groups run in TensorFlow's own convolution.

    Arguments, weights, files and results are those of the Keras layer. On TensorFlow,
    Keras wraps every grouped convolution in a function that XLA must compile: its
    gradient is many times slower on a CPU, and TensorFlow Serving refuses it. On a CPU,
    TensorFlow's convolution has a gradient for groups only with oneDNN, which it uses
    on some processors, in float32 and bfloat16. Elsewhere, each group is a separate
    convolution.
    """

    def convolution_op(self, inputs, kernel):
        channels_last = self.data_format == "channels_last"
        if keras.backend.backend() != "tensorflow" or not channels_last:
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        def convolve(inputs, kernel):
            padding = self.padding.upper()
            return tf.nn.conv2d(
                inputs, kernel, self.strides, padding, dilations=self.dilation_rate
            )

        if _has_gradient_of_groups(inputs.dtype):
            return convolve(inputs, kernel)
        groups = (tf.split(array, self.groups, axis=-1) for array in (inputs, kernel))
        return tf.concat(
            [convolve(*group) for group in zip(*groups, strict=True)], axis=-1
        )


@functools.cache
def _has_gradient_of_groups(dtype):
    """Whether TensorFlow can train a grouped convolution of this dtype here."""
    import tensorflow as tf

    try:
        with tf.init_scope():
            kernel, image = tf.ones((3, 3, 2, 4), dtype), tf.ones((1, 4, 4, 4), dtype)
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=image.shape,
                filter=kernel,
                out_backprop=image[:, :2, :2],
                strides=(1, 1, 1, 1),
                padding="VALID",
            )
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return False
    return True


def he_normal(fan_out: int | None = None):
    """He normal over the fan-out of the kernel, or the given one, as published."""
    if fan_out is None:
        return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return keras.initializers.RandomNormal(stddev=(2 / fan_out) ** 0.5)


def conv(
    x, filters: int, kernel_size: int, stride: int = 1, *, groups: int = 1, name: str
):
    """Convolution without bias, padded by (kernel_size - 1) // 2 on every side."""
    x, padding = _pad(x, kernel_size, stride, name)
    layer = layers.Conv2D if groups == 1 else GroupedConv2D
    return layer(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        groups=groups,
        use_bias=False,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def depthwise_conv(x, kernel_size: int, stride: int = 1, *, name: str):
    """Depthwise convolution whose fan-out counts all channels, as published."""
    fan_out = kernel_size**2 * x.shape[channel_axis()]
    x, padding = _pad(x, kernel_size, stride, name)
    return layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=he_normal(fan_out),
        name=name,
    )(x)


def max_pool(x, name: str):
    """3x3 max pooling with stride 2 and padding 1, for inputs >= 0."""
    x, padding = _pad(x, 3, 2, name)
    return layers.MaxPooling2D(3, strides=2, padding=padding, name=name)(x)


def squeeze_excitation(x, reduction: int, *, name: str):
    """x * sigmoid(conv1x1(relu(conv1x1(mean of x over all positions)))).

    Hu, Shen and Sun, Squeeze-and-Excitation Networks, CVPR 2018. The first convolution
    returns a `reduction`-th of the channels; neither has a bias.
    """
    channels = x.shape[channel_axis()]
    s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    s = conv(s, max(channels // reduction, 1), 1, name=f"{name}_conv1")
    s = layers.ReLU(name=f"{name}_relu")(s)
    s = conv(s, channels, 1, name=f"{name}_conv2")
    s = layers.Activation("sigmoid", name=f"{name}_sigmoid")(s)
    return layers.Multiply(name=name)([x, s])


def _pad(x, kernel_size, stride, name):
    """Pads evenly, as weights of other frameworks expect.

    Keras' "same" pads unevenly at stride 2.
    """
    if stride == 1 or kernel_size == 1:
        return x, "same"
    x = layers.ZeroPadding2D((kernel_size - 1) // 2, name=f"{name}_pad")(x)
    return x, "valid"


def head(
    x,
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation,
    dropout: float = 0.0,
    initializers: tuple | None = None,
):
    """Adds global average pooling and a classifier, as in Keras Applications.

    Without the top, `pooling` selects the output. Kernel and bias are initialized
    uniformly in +-1/sqrt(features), as published, or by the given pair of initializers.

    Raises:
        ValueError: If `pooling` is not `None`, "avg" or "max", or `classes` is < 1.
    """
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            f"`pooling` must be None, 'avg' or 'max'. Received: pooling={pooling!r}."
        )
    arguments.require_boolean("include_top", include_top)
    arguments.require_fraction("dropout", dropout)
    if include_top:
        integer = isinstance(classes, numbers.Integral) and not isinstance(
            classes, bool
        )
        if not integer or classes < 1:
            raise ValueError(
                f"`classes` must be an int >= 1. Received: classes={classes!r}."
            )
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        if dropout:
            x = layers.Dropout(dropout, name="dropout")(x)
        bound = x.shape[-1] ** -0.5
        kernel, bias = initializers or (
            keras.initializers.RandomUniform(-bound, bound) for _ in range(2)
        )
        return layers.Dense(
            int(classes),
            activation=classifier_activation,
            kernel_initializer=kernel,
            bias_initializer=bias,
            dtype=keras.config.dtype_policy().variable_dtype,
            name=HEAD,
        )(x)
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x
