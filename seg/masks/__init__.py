"""Masks of instances: run lengths, and pasting of predicted masks."""
