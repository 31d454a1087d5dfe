"""Attentive Normalization for Keras. Importing registers all serializable classes."""

from an_keras.attentive_normalization import AttentiveNormalization
from an_keras.batch_normalization import BatchNormalization
from an_keras.conversion import convert_normalization
from an_keras.inference import (
    collect_attention,
    fold_for_inference,
    freeze_all_but_normalization,
    freeze_normalization,
)

__version__ = "0.1.0"
__all__ = [
    "AttentiveNormalization",
    "BatchNormalization",
    "collect_attention",
    "convert_normalization",
    "fold_for_inference",
    "freeze_all_but_normalization",
    "freeze_normalization",
]
