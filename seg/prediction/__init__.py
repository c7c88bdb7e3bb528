"""`--mode=predict`: pictures in, class maps, overlays and a record of each out."""
