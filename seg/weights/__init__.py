"""Weights on disk: tensor files, and starting a model from them."""
