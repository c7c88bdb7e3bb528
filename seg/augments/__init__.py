"""Augments: seeded changes to one training example."""
