"""Data sets: where examples come from."""
