"""An experiment framework for image segmentation.

Importing this package loads nothing: Keras reads its backend from the environment, and TensorFlow its log level, at
their first import, so both must still be open here.
"""

__version__ = '0.1.0'
