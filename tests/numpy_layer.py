"""The whole layer in NumPy and float64, implemented from its equations."""

import numpy as np
import scipy.special

ACTIVATIONS = {
    "hard_sigmoid": lambda t: np.clip(t / 6 + 0.5, 0, 1),
    "sigmoid": scipy.special.expit,
    "softmax": lambda t: scipy.special.softmax(t, axis=-1),
}


def describe(x, kind, mask):
    """Describes each sample: x (N, P, C) and mask (N, P) -> (N, C)."""
    rows = []
    for sample, keep in zip(x, mask, strict=True):
        positions = sample[keep]
        if not len(positions):
            rows.append(np.zeros(x.shape[-1]))
            continue
        mean = positions.mean(0)
        variance = positions.var(0, ddof=1) if len(positions) > 1 else 0 * mean
        rows.append(
            {
                "mean_over_std": mean / np.sqrt(variance + 1e-3),
                "mean": mean,
                "mean_plus_max": mean + positions.max(0),
            }[kind]
        )
    return np.array(rows)


def gate_norm(logits, weights, prefix, kind, training, epsilon, counting):
    if kind is None:
        return logits + weights[f"{prefix}bias"]
    if kind == "group":
        mean, variance = logits.mean(-1, keepdims=True), logits.var(-1, keepdims=True)
    elif training:
        mean, variance = logits[counting].mean(0), logits[counting].var(0)
    else:
        mean, variance = (weights[f"{prefix}moving_{m}"] for m in ("mean", "variance"))
    normalized = (logits - mean) / np.sqrt(variance + epsilon)
    return normalized * weights[f"{prefix}gamma"] + weights[f"{prefix}beta"]


def standardize(x, config, weights, mask, training):
    """Returns x_hat for x (N, P, C)."""
    kind, epsilon = config["normalization"], config["epsilon"]
    if kind is None:
        return x
    if kind == "layer":
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    elif kind == "batch" and training:
        mean, variance = x[mask].mean(0), x[mask].var(0)
    elif kind == "batch":
        mean, variance = weights["moving_mean"], weights["moving_variance"]
    else:
        groups = config["groups"] if kind == "group" else x.shape[-1]
        mean, variance = np.zeros((2, len(x), 1, x.shape[-1]))
        for n, keep in enumerate(mask):
            for channels in np.split(np.arange(x.shape[-1]), groups):
                part = x[n][keep][:, channels]
                if part.size:
                    mean[n, 0, channels] = part.mean()
                    variance[n, 0, channels] = part.var()
    return (x - mean) / np.sqrt(variance + epsilon)


def layer(x, config, weights, mask=None, training=False):
    """Returns output (N, P, C) and attention (N, K) for x (N, P, C) in float64.

    `config` is the config of the layer, and `weights` are its variables by name.
    """
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    counting = mask.any(1)  # samples with an unmasked position
    kind = config["gate_normalization"]
    if kind == "auto":
        kind = "batch" if config["normalization"] == "batch" else None
    hidden = describe(x, config["descriptor"], mask)
    if config["gate_hidden_units"]:
        hidden = gate_norm(
            hidden @ weights["gate/hidden_kernel"],
            weights,
            "gate/hidden_",
            kind,
            training,
            config["epsilon"],
            counting,
        )
        hidden = np.maximum(hidden, 0)
    logits = hidden @ weights["gate/kernel"]
    rest = (kind, training, config["epsilon"], counting)
    logits = gate_norm(logits, weights, "gate/", *rest)
    attention = ACTIVATIONS[config["gate_activation"]](logits)
    gamma, beta = attention @ weights["gamma"], attention @ weights["beta"]
    x_hat = standardize(x, config, weights, mask, training)
    return gamma[:, None] * x_hat + beta[:, None], attention
