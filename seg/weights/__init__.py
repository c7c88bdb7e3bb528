"""Weights on disk: tensor files, and the initialisation of models from them."""
