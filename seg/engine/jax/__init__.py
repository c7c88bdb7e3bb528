"""The engine for the Keras backend `jax`: TPUs, GPUs and CPUs."""
