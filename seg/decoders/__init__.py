"""Decoders: from a backbone's feature maps to the maps that heads read."""
