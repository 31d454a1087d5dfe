"""From a data set to a SavedModel: `python -m train` and the commands beside it.

Training is TensorFlow's (tf.distribute, orbit), whatever backend Keras would choose.
"""

import glob
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
# No notes about CPU features and, where there is no GPU, no error about CUDA.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if glob.glob("/dev/nvidia*") else "3")
