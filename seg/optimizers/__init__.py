"""Optimizers: the update rule only. L2, clipping and averaging belong to the executor's optimizer step."""
