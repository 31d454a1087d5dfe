"""Networks that carry attentive normalization. Importing registers all of them."""

from model_zoo import resnet
from model_zoo.registry import create_model, list_models, model_info

__all__ = ["create_model", "list_models", "model_info", "resnet"]
