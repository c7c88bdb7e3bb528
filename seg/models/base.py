"""What all models share: calls in Keras' ways, and what to do in place of `save` and `export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import keras
from keras import ops

from seg.errors import UserError


class SegmentationModel(keras.Model):
    """A model of images on a canvas, `call(batch, training)`.

    `summary`, `predict`, `save_weights` and `load_weights` are Keras' own. Keras cannot save how a model is built,
    because gin builds it from parts.
    """

    def __call__(self, batch: Any, *args, **kwargs) -> Any:
        """Calls the model.

        Args:
          batch: as for `call`; or images [B, H, W, 3] alone, RGB from 0 to 255, which fill their canvas.
          *args: as for `call`.
          **kwargs: as for `call`.
        """
        if not isinstance(batch, Mapping):
            batch = {'image': batch}
        if 'size' not in batch:
            batch = {**batch, **self._filling(batch['image'])}
        return super().__call__(batch, *args, **kwargs)

    def _filling(self, images: Any) -> dict[str, Any]:
        """`image` and `size` of a batch without padding."""
        images = ops.convert_to_tensor(images)
        if len(images.shape) != 4 or images.shape[-1] != 3:
            raise UserError(
                f'{self.name}: images have shape {list(images.shape)}; expected [images, height, width, 3], RGB '
                'from 0 to 255, or a dict of `image` and `size`.'
            )
        count, height, width, _ = ops.shape(images)
        size = ops.ones((count, 2), 'int32') * ops.convert_to_tensor([height, width], 'int32')
        return {'image': ops.cast(images, keras.config.floatx()), 'size': size}

    def get_config(self) -> NoReturn:
        """Refuses what needs a model's settings: `save`, `to_json`, `clone_model`.

        Raises:
          UserError: with the calls that do this.
        """
        raise UserError(
            f'{self.name}: Keras cannot save a model that gin builds. seg.load(model_dir) loads the model of a run; '
            'save_weights and load_weights keep its weights; --mode=export writes a SavedModel, ONNX, TFLite or '
            'OpenVINO.'
        )

    def save(self, *_, **__) -> NoReturn:
        """Refuses before Keras has made a file; see `get_config`."""
        self.get_config()

    def export(self, *_, **__) -> NoReturn:
        """Refuses to export without preprocessing and without a check.

        Raises:
          UserError: with the mode that exports.
        """
        raise UserError(
            f"{self.name}: --mode=export, in Python seg.modes.run(model_dir=…, mode='export'), writes a SavedModel, "
            'ONNX, TFLite or OpenVINO with the preprocessing, and checks that it computes the same.'
        )
