"""Attentive Normalization for Keras. Importing registers every serializable class."""

from an_keras.attentive_normalization import AttentiveNormalization
from an_keras.batch_normalization import BatchNormalization
from an_keras.inference import collect_attention

__version__ = "0.1.0"
__all__ = ["AttentiveNormalization", "BatchNormalization", "collect_attention"]
