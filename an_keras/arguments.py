"""Argument checks. Messages state what is wrong, expected and received."""

import numbers

import keras
import numpy as np
from keras import ops

MOST = 2**20  # components, groups, units: far more than anyone needs
LEAST, LARGEST = (float(getattr(np.finfo("float32"), n)) for n in ("tiny", "max"))


def require_integer(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}.")


def require_positive_integer(name, value):
    require_integer(name, value)
    if not 1 <= value <= MOST:
        raise ValueError(
            f"`{name}` must be >= 1 and at most {MOST}. Received: {name}={value!r:.30}."
        )


def require_number(name, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}.")


def require_fraction(name, value):
    require_number(name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}.")


def require_positive_number(name, value):
    require_number(name, value)
    if not LEAST <= value <= LARGEST:
        raise ValueError(
            f"`{name}` must be > 0 and finite in float32. "
            f"Received: {name}={value!r:.30}."
        )


def require_boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be a boolean. Received: {name}={value!r}.")


def require_floating(name, policy):
    for dtype in (policy.variable_dtype, policy.compute_dtype):
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                f"`{name}` must be a floating point type. Received: {name}={dtype!r}."
            )


def require_member(name, value, members):
    if not (value is None or isinstance(value, str)) or value not in members:
        expected = ", ".join(repr(member) for member in members)
        raise ValueError(
            f"`{name}` must be one of {expected}. Received: {name}={value!r}."
        )


def require_activation(name, activation, units):
    """Checks that `activation` maps logits to weights, each sample independently.

    Logits and weights have shape (N, K), with K = `units`.
    """
    units = max(units, 2)  # Keras warns about a softmax over one
    logits = np.zeros((4, units), "float32")
    logits[1, 0] = 10.0
    logits[2:] = np.linspace(0.5, 0.2, units), np.linspace(-3.0, 3.0, units)

    def refuse(received, error=None):
        raise ValueError(
            f"`{name}` must map logits (N, K) to weights (N, K) of a floating point "
            "type, each sample independently. All weights must be finite. If they add "
            "up to 1 for some logits, they must do so for all logits. "
            f"Received: {name}={activation!r}, {received}"
        ) from error

    try:
        together = activation(ops.convert_to_tensor(logits))
        alone = [activation(ops.convert_to_tensor(row[None])) for row in logits]
    except Exception as error:
        refuse(f"which fails for K={units}: {error}", error)
    dtype = keras.backend.standardize_dtype(together.dtype)
    if tuple(together.shape) != logits.shape or "float" not in dtype:
        refuse(
            f"which returns weights {tuple(together.shape)} of type {dtype} for logits "
            f"{logits.shape}."
        )
    try:
        weights = ops.convert_to_numpy(together)
        alone = np.concatenate([ops.convert_to_numpy(each) for each in alone])
    except (NotImplementedError, TypeError):
        return  # tensors of a function that is being traced have no values
    if not np.isfinite(weights).all():
        refuse(
            "which returns weights that are not finite for logits "
            f"{logits[~np.isfinite(weights).all(axis=1)][0]}."
        )
    if not np.allclose(weights, alone, atol=1e-5):
        refuse("whose weights for one sample depend on the other samples.")
    sums = weights.sum(axis=1)
    is_one = np.abs(sums - 1.0) < 1e-3
    if is_one[:2].all() and not is_one.all():
        row = int(np.argmin(is_one))
        refuse(
            f"whose weights add up to 1 for some logits and to {sums[row]:.3g} for "
            f"{logits[row].round(2).tolist()}. (`keras.activations.sparsemax` of Keras "
            '3.15 has this bug; "softmax" does not.)'
        )
