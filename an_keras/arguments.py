"""Checks of arguments: what is wrong, what was expected, what was received."""

import math
import numbers


def require_integer(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}.")


def require_positive_integer(name, value):
    require_integer(name, value)
    if value < 1:
        raise ValueError(f"`{name}` must be >= 1. Received: {name}={value}.")


def require_number(name, value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}.")


def require_fraction(name, value):
    require_number(name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}.")


def require_positive_number(name, value):
    require_number(name, value)
    if not 0.0 < value < math.inf:
        raise ValueError(f"`{name}` must be > 0 and finite. Received: {name}={value}.")


def require_boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be a boolean. Received: {name}={value!r}.")


def require_member(name, value, members):
    if not (value is None or isinstance(value, str)) or value not in members:
        expected = ", ".join(repr(member) for member in members)
        raise ValueError(
            f"`{name}` must be one of {expected}. Received: {name}={value!r}."
        )
