"""The files of a run: this package has all their paths, and writes and reads them."""
