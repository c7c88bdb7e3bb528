"""Inspection of data before a training: `--mode=check_data` and `--mode=show_data`."""
