"""The training and evaluation loop, and what happens at its boundaries."""
