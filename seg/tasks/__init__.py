"""Tasks: model, losses, metrics and batches of one problem; no loop."""
