"""Small layers from which the parts of a model are built."""
