"""Heads: from a feature map to predictions."""
