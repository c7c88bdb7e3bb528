"""The training and evaluation loop, and the work of the host between two loops."""
