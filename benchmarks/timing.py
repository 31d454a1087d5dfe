"""Times calls side by side."""

import random
import statistics
import time

WARM_UP = 3


def times(calls: dict, rounds: int) -> dict[object, list[float]]:
    """Returns the seconds of every call by name; each round shuffles the calls."""
    seconds = {name: [] for name in calls}
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(calls: dict, rounds: int) -> dict[object, float]:
    """Returns the median of the seconds of each call, by name."""
    measured = times(calls, rounds)
    return {name: statistics.median(values) for name, values in measured.items()}
