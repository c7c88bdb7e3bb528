"""Label maps and instance maps in image files: what the readers `voc_layout`, `folders` and `cityscapes` share."""
