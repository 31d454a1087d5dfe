"""Which norm goes where: its kind, K of each stage and its place in the block."""

import itertools
import math
import numbers

import keras

from an_keras import AttentiveNormalization, BatchNormalization
from model_zoo.blocks import channel_axis, squeeze_excitation

BACKBONES = ("batch", "group")
OUTSIDE_BLOCKS = ("stem", "shortcut", "transition", "last")
# In AOGNet: after a block, and in nodes that do not span all units.
OUTSIDE_FULL_NODES = ("root", "part_norm1", "part_norm2", "part_norm3")
REDUCTIONS = {"norm1": 4, "norm2": 4, "norm3": 16}  # of squeeze-and-excitation
MOMENTUM, EPSILON = 0.9, 1e-5  # in every published network
ZERO_TABLES = {"gamma_initializer": "zeros", "beta_initializer": "zeros"}


class Norms:
    """Creates the norms of one network.

    Args:
        variant: What the chosen places get: `"bn"` plain norms, `"an"` AN, `"se"` plain
            norms, each followed by squeeze-and-excitation.
        position: The chosen places in a block, such as `"norm1"` or `"norm12"`, or
            `"all"` for every norm of the network.
        block_norms: Number of norms in a block of this network.
        num_components: The K of all stages, or one K per stage.
        stages: Number of stages of the network.
        normalization: `"batch"`, or `"group"` with gcd(32, channels) groups.
        synchronized: Whether to compute batch statistics over all replicas; on
            TensorFlow.
        norm_options: Further arguments of every `AttentiveNormalization`. A tuple holds
            one value for each stage.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the block has no such position, a tuple does not have one value
            for each stage, or the normalization is unknown.
    """

    def __init__(
        self,
        *,
        variant: str,
        position: str,
        block_norms: int,
        num_components: int | tuple[int, ...],
        stages: int,
        normalization: str = "batch",
        synchronized: bool = False,
        norm_options: dict | None = None,
    ):
        if normalization not in BACKBONES:
            raise ValueError(
                f"`normalization` must be one of {', '.join(map(repr, BACKBONES))}. "
                f"Received: normalization={normalization!r}."
            )
        if not isinstance(num_components, (tuple, list)):
            num_components = (num_components,) * stages  # AN validates the value
        if not all(isinstance(k, numbers.Integral) for k in num_components):
            raise TypeError(
                "`num_components` must be an int or one int for each stage. "
                f"Received: num_components={num_components}."
            )
        if len(num_components) != stages:
            raise ValueError(
                f"`num_components` must be an int or one int for each of the {stages} "
                f"stages. Received: num_components={num_components}."
            )
        if norm_options is not None and not isinstance(norm_options, dict):
            raise TypeError(
                "`norm_options` must be a dictionary of arguments of "
                f"AttentiveNormalization. Received: norm_options={norm_options!r}."
            )
        for option, value in (norm_options or {}).items():
            if isinstance(value, (tuple, list)) and len(value) != stages:
                raise ValueError(
                    "`norm_options` must hold one value or one for each of the "
                    f"{stages} stages. Received: {option}={value}."
                )
        places = _places(position, block_norms)
        self._variant = variant
        self._places = places
        self._num_components = tuple(num_components)
        self._normalization = normalization
        self._synchronized = synchronized
        self._norm_options = dict(norm_options or {})

    def __call__(self, x, place: str, stage: int, name: str, zero: bool = False):
        """Applies the norm at `place` ("norm1", "stem", ...) in `stage`, from 0.

        With `zero`, its scale, or both tables of an AN, start at 0, and so does its
        output.
        """
        shared = {"axis": channel_axis(), "epsilon": EPSILON, "name": name}
        groups = math.gcd(32, x.shape[channel_axis()])
        batch = {"momentum": MOMENTUM, "synchronized": self._synchronized}
        chosen = self._variant if place in self._places else "bn"
        if chosen == "an":
            options = {
                "num_components": self._num_components[stage],
                "normalization": self._normalization,
                "groups": groups,
                **shared,
                **batch,
                **(ZERO_TABLES if zero else {}),
                **{
                    option: value[stage] if isinstance(value, (tuple, list)) else value
                    for option, value in self._norm_options.items()
                },
            }
            # The square of the gain at initialization. Training does not use it; with
            # 1, the outputs of a deep untrained network overflow in inference.
            gain = options["num_components"] / 2
            options.setdefault(
                "moving_variance_initializer", keras.initializers.Constant(gain**2)
            )
            return AttentiveNormalization(**options)(x)
        shared["gamma_initializer"] = "zeros" if zero else "ones"
        if self._normalization == "group":
            x = keras.layers.GroupNormalization(groups=groups, **shared)(x)
        else:
            x = BatchNormalization(**shared, **batch)(x)
        if chosen == "se":
            return squeeze_excitation(x, REDUCTIONS.get(place, 16), name=f"{name}_se")
        return x


def _places(position: str, block_norms: int) -> frozenset[str]:
    if position == "all":
        inside = (f"norm{i + 1}" for i in range(block_norms))
        return frozenset([*inside, *OUTSIDE_BLOCKS, *OUTSIDE_FULL_NODES])
    combinations = {
        "norm" + "".join(str(i + 1) for i in chosen): frozenset(
            f"norm{i + 1}" for i in chosen
        )
        for size in range(1, block_norms + 1)
        for chosen in itertools.combinations(range(block_norms), size)
    }
    if position not in list(combinations):
        raise ValueError(
            f"`position` must be one of {', '.join(map(repr, combinations))} or 'all' "
            f"in this network. Received: position={position!r}."
        )
    return combinations[position]
