"""An experiment framework for image segmentation.

Importing this package loads no framework: at their first import Keras reads its backend from the environment, and
TensorFlow its log level and its use of oneDNN. These must be changeable until then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.serving.arrays import ImagePredictor

__version__ = '0.1.0'

# On x86 processors without AVX512-VNNI, TensorFlow leaves oneDNN off, and a training step takes twice the time. If
# TensorFlow was imported first, the variable is not set, because it would have no effect.
if 'tensorflow' not in sys.modules:
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')


def load(
    path: str | os.PathLike,
    *,
    checkpoint: str = 'latest',
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    engine: Engine | None = None,
) -> ImagePredictor:
    """Loads a trained model: `seg.load('runs/mine')('photo.jpg').overlay()`.

    Args:
      path: the directory of a run, or a file of `--mode=export`.
      checkpoint: which weights of a run: `latest`, `best`, or the path of a checkpoint.
      gin_params: single bindings, such as `predict.large_pictures='tile'`.
      plugin_specs: modules or files with parts of your own, as for `--plugins`; those of the run are known.
      engine: from `seg.engine.set_up`; None for `auto` in everything.

    Returns:
      A function of an image (path, array or Pillow image) or a list of images; see `ImagePredictor`.

    Raises:
      UserError: if there is no model, or for a mistake in the settings.
    """
    from seg.modes import predicting

    return predicting.load(path, checkpoint, gin_params, plugin_specs, engine)
