"""Export: files of a trained model for other runtimes, the check that they compute the same, and their use."""
