"""Losses: per image and un-normalised; pixels with the ignore label do not count."""
