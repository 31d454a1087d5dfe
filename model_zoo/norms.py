"""What norm goes where: its kind, K of each stage and its place in the block."""

import math
import re

import keras

from an_keras import AttentiveNormalization, BatchNormalization

BACKBONES = ("batch", "group")
OUTSIDE_BLOCKS = ("stem", "shortcut", "transition", "last")
ZERO_TABLES = {"gamma_initializer": "zeros", "beta_initializer": "zeros"}


class Norms:
    """Creates the norms of one network.

    Args:
        attentive: `True` for AN in the chosen places; `False` for plain norms only.
        position: the places in a block that get AN, as `"norm1"` or `"norm12"`, or
            `"all"`: every norm of the network.
        block_norms: how many norms a block of this network has.
        num_components: K, one for all stages or one per stage.
        stages: how many stages the network has.
        normalization: `"batch"` or `"group"`, with gcd(32, channels) groups.
        synchronized: batch statistics over all replicas.
        norm_options: further arguments of every `AttentiveNormalization`; a tuple holds
            one value for each stage.
        momentum, epsilon: of every norm.

    Raises:
        ValueError: a position that the block does not have, another number of K than
            stages, an unknown normalization.
    """

    def __init__(
        self,
        *,
        attentive: bool,
        position: str,
        block_norms: int,
        num_components: int | tuple[int, ...],
        stages: int,
        normalization: str = "batch",
        synchronized: bool = False,
        norm_options: dict | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ):
        if normalization not in BACKBONES:
            raise ValueError(
                f"`normalization` must be one of {', '.join(map(repr, BACKBONES))}. "
                f"Received: normalization={normalization!r}."
            )
        if isinstance(num_components, int):
            num_components = (num_components,) * stages
        if len(num_components) != stages:
            raise ValueError(
                f"`num_components` must be an int or one int for each of the {stages} "
                f"stages. Received: num_components={num_components}."
            )
        for option, value in (norm_options or {}).items():
            if isinstance(value, (tuple, list)) and len(value) != stages:
                raise ValueError(
                    "`norm_options` must hold one value or one for each of the "
                    f"{stages} stages. Received: {option}={value}."
                )
        places = _places(position, block_norms)
        self._attentive_places = places if attentive else frozenset()
        self._num_components = tuple(num_components)
        self._normalization = normalization
        self._synchronized = synchronized
        self._norm_options = dict(norm_options or {})
        self._shared = {"momentum": momentum, "epsilon": epsilon}

    def __call__(self, x, place: str, stage: int, name: str, zero: bool = False):
        """Applies the norm of `place` ("norm1", "stem", ...) in `stage`, from 0.

        With `zero` its output starts at 0: the scale, or both tables of an AN.
        """
        axis = -1 if keras.config.image_data_format() == "channels_last" else 1
        groups = math.gcd(32, x.shape[axis])
        if place in self._attentive_places:
            num_components = self._num_components[stage]
            options = {
                "num_components": num_components,
                "normalization": self._normalization,
                "groups": groups,
                "axis": axis,
                "synchronized": self._synchronized,
                # The square of the gain at initialization. Training never sees it; with
                # 1, the outputs of a deep untrained network overflow in inference.
                "moving_variance_initializer": keras.initializers.Constant(
                    (num_components / 2) ** 2
                ),
                **self._shared,
                **(ZERO_TABLES if zero else {}),
                **{
                    option: value[stage] if isinstance(value, (tuple, list)) else value
                    for option, value in self._norm_options.items()
                },
            }
            return AttentiveNormalization(name=name, **options)(x)
        gamma_initializer = "zeros" if zero else "ones"
        if self._normalization == "group":
            epsilon = self._shared["epsilon"]
            return keras.layers.GroupNormalization(
                groups=groups,
                axis=axis,
                epsilon=epsilon,
                gamma_initializer=gamma_initializer,
                name=name,
            )(x)
        return BatchNormalization(
            axis=axis,
            synchronized=self._synchronized,
            gamma_initializer=gamma_initializer,
            name=name,
            **self._shared,
        )(x)


def _places(position: str, block_norms: int) -> frozenset[str]:
    inside = [f"norm{i + 1}" for i in range(block_norms)]
    if position == "all":
        return frozenset([*inside, *OUTSIDE_BLOCKS])
    digits = re.fullmatch(r"norm([1-9]+)", str(position))
    places = [f"norm{digit}" for digit in digits[1]] if digits else []
    if not places or not set(places) <= set(inside) or places != sorted(set(places)):
        combined = "norm" + "".join(str(i + 1) for i in range(block_norms))
        expected = ", ".join(map(repr, [*inside, combined]))
        raise ValueError(
            f"`position` must be one of {expected} or 'all' in this network. "
            f"Received: position={position!r}."
        )
    return frozenset(places)
