"""The engine on TensorFlow: one machine, its CPU or its GPUs."""
