"""Networks with attentive normalization. Importing the package registers them all."""

import sys

# Python imports the package before it runs `python -m model_zoo list`. That table needs
# no Keras, whose import takes seconds.
if sys.argv[:2] != ["-m", "list"] or sys.orig_argv[-len(sys.argv)] != "model_zoo":
    from model_zoo import aognet, applications, densenet, mobilenet_v2, resnet
    from model_zoo.multi_scale import multi_scale
    from model_zoo.preprocessing import decode_predictions, preprocess_input
    from model_zoo.registry import create_model, list_models, model_info
    from model_zoo.torch_checkpoint import LoadReport, load_torch_checkpoint

__all__ = [
    "LoadReport",
    "aognet",
    "applications",
    "create_model",
    "decode_predictions",
    "densenet",
    "list_models",
    "load_torch_checkpoint",
    "mobilenet_v2",
    "model_info",
    "multi_scale",
    "preprocess_input",
    "resnet",
]
