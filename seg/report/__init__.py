"""One self-contained HTML page of a run, written from its files alone: no model, no data set, no TensorFlow."""
