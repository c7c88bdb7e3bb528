"""What readers of instances share: outlines, masks, and the data set that holds them."""
