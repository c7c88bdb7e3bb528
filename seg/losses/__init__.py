"""Losses: sums per image, not yet divided; ignored pixels are excluded."""
