"""Code shared by the readers of instances: outlines, masks, and the data set that holds them."""
