"""Backbones: from an image to feature maps `c2` to `c5`."""
