"""The exported function traced by TensorFlow, and saved as a SavedModel, which most converters read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from seg.export import image_bytes
from seg.ops import dispatch

# Custom gradients cannot be saved, and an exported file is not trained.
_OPTIONS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
IMAGE_BYTES = 'image_bytes'  # A signature.


def images_on(canvas: tuple[int, int]) -> list[tf.TensorSpec]:
    """The inputs of `network.INPUTS`, for a canvas (height, width)."""
    return [tf.TensorSpec((None, *canvas, 3), tf.uint8, 'images'), tf.TensorSpec((None, 2), tf.int32, 'sizes')]


class Traced:
    """A network in all forms that the converters take, each made once, in the portable form.

    Attributes:
      specs: the inputs, any number of images each.
      function: returns the network as a traced `tf.function` of the inputs, for a number of images or any (None).
      saved_model: returns a folder with the network as a SavedModel, for a number of images or any (None).
    """

    def __init__(
        self,
        network: Callable[..., dict[str, Any]],
        variables: Sequence[Any],
        specs: Sequence[tf.TensorSpec],
        scratch: str,
        of_bytes: Callable[[Any], dict[str, Any]] | None = None,
    ):
        """Stores the network to export.

        Args:
          network: from `seg.export.network`.
          variables: its Keras variables.
          specs: its arguments: names, dtypes, and shapes [None, …].
          scratch: a folder for SavedModels.
          of_bytes: from `seg.export.image_bytes`, for a second signature of SavedModels; None for none.
        """
        self.specs = specs
        self._network, self._of_bytes, self._scratch = network, of_bytes, scratch
        self._variables = variables
        self.function = functools.cache(self._trace)
        self.saved_model = functools.cache(self._save)

    def _trace(self, batch: int | None) -> Any:
        signature = [tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, spec.name) for spec in self.specs]
        function = tf.function(self._network, input_signature=signature, autograph=False)
        with dispatch.portable():
            function.get_concrete_function()
        return function

    def outputs(self, batch: int | None) -> dict[str, Any]:
        """The specs of the outputs by name."""
        return dict(self.function(batch).get_concrete_function().structured_outputs)

    def _save(self, batch: int | None) -> str:
        folder = os.path.join(self._scratch, f'saved-{batch}')
        self.save(folder, batch, with_bytes=False)
        return folder

    def save(self, folder: str, batch: int | None, with_bytes: bool) -> None:
        """Writes a SavedModel.

        Args:
          folder: where to.
          batch: number of images of the signature `serving_default`; None for any.
          with_bytes: whether it has the signature `image_bytes`, too.
        """
        # Functions that are attributes would be traced again, so the module holds the variables alone.
        module = tf.Module()
        module.kept = [variable.value for variable in self._variables]
        signatures = {'serving_default': self.function(batch).get_concrete_function()}
        with dispatch.portable():
            if with_bytes and self._of_bytes is not None:
                one = tf.function(self._of_bytes, input_signature=[image_bytes.INPUT], autograph=False)
                signatures[IMAGE_BYTES] = one.get_concrete_function()
            tf.saved_model.save(module, folder, signatures=signatures, options=_OPTIONS)
