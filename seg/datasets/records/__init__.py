"""Data sets in record files."""
