"""An experiment framework for image segmentation.

Importing this package loads nothing: Keras reads its backend from the environment, and TensorFlow its log level and
whether to use oneDNN, at their first import, so these must still be open here.
"""

import os
import sys

__version__ = '0.1.0'

# TensorFlow leaves oneDNN off on x86 processors without AVX512-VNNI, where a training step then takes twice the time.
# Where TensorFlow came first, the variable stays as it is: it would no longer tell what holds.
if 'tensorflow' not in sys.modules:
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
