"""Small layers that the parts of a model are made of."""
