"""From a data set to a SavedModel: `python -m train` and the commands beside it.

Training is TensorFlow's (tf.distribute, orbit), whatever backend Keras would choose.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about CPU features
