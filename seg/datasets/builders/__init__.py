"""Published data sets, prepared from the archives of their authors."""
