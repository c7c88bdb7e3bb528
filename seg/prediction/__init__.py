"""`--mode=predict`: from images to class maps or detections, overlays, and a record of each image."""
