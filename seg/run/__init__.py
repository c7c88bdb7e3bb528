"""The files of a run: one owner of their paths, which writes and reads them."""
