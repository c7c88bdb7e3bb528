"""Label maps and instance maps in image files, for the readers `voc_layout`, `folders` and `cityscapes`."""
