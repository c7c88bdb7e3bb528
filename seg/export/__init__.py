"""Export: files of a trained model for other runtimes, the check that they compute the same, and their use."""

import os

# Before onnxruntime is imported: it would report its use to its maker, and write a file to the temporary folder.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
