"""Data sets -> batches for one process's share; tf.data; once for all tasks."""
