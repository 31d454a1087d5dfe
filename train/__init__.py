"""From a data set to a SavedModel: `python -m train` and related commands.

Training uses TensorFlow (tf.distribute, orbit), whatever backend Keras would choose.
"""

import glob
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
# Hides notes about CPU features and, without a GPU, errors about CUDA.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if glob.glob("/dev/nvidia*") else "3")
