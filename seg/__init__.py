"""An experiment framework for image segmentation.

Importing this package loads no framework: at their first import Keras reads its backend from the environment, and
TensorFlow its log level and its use of oneDNN. These must be changeable until then.
"""

import os
import sys

__version__ = '0.1.0'

# On x86 processors without AVX512-VNNI, TensorFlow leaves oneDNN off, and a training step takes twice the time. If
# TensorFlow was imported first, the variable is not set, because it would have no effect.
if 'tensorflow' not in sys.modules:
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
