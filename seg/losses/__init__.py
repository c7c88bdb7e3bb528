"""Losses of semantic segmentation: per image, un-normalised, pixels with the ignore label left out."""
