"""Backbones of other libraries in Keras 3, rewritten for segmentation."""
