"""The formats: how each file is made by the format's own converter, and how it holds its description."""

from __future__ import annotations

import importlib
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seg.errors import UserError
from seg.export.description import Description
from seg.export.model_file import MEMBER, ONNX_KEY, newest_version

if TYPE_CHECKING:
    from seg.export.tracing import Traced

_OPSET = 18
# Images for the calibration of int8, as batches of one: (uint8 [1, H, W, 3], int32 [1, 2]).
Images = Sequence[tuple[np.ndarray, np.ndarray]]


class Format(NamedTuple):
    """A format.

    Attributes:
      path: what `open_model` opens, relative to the output folder; its first part is all that the format writes there.
      packages: the modules that make and run it.
      quantize: the quantizations that it has, by the kind of task.
      fixed_batch: whether a file has a fixed batch size.
      write: function of the traced network, the path, the number of images, the quantization and the images for
        calibration.
      describe: function of the path and a description, which replaces the one in the file.
    """

    path: str
    packages: tuple[str, ...]
    quantize: dict[str, tuple[str, ...]]
    fixed_batch: bool
    write: Callable[[Traced, str, int | None, str, Images], None]
    describe: Callable[[str, Description], None]

    @property
    def entry(self) -> str:
        """The file or folder that the format writes into the output folder."""
        return entry(self.path)

    def check_installed(self, flag: str) -> None:
        """Refuses a format whose packages are missing.

        Args:
          flag: how it was asked for.

        Raises:
          UserError: with the packages, and the command that installs them.
        """
        if missing := [package for package in self.packages if importlib.util.find_spec(package) is None]:
            raise UserError(f"{flag} needs {', '.join(missing)}: pip install -e '.[export]' installs it.")


def entry(path: str) -> str:
    """The first part of a path."""
    return path.partition('/')[0]


def size(path: str) -> int:
    """Bytes of a file with what belongs to it, or of a folder."""
    if path.endswith('.xml'):
        path = os.path.dirname(path)
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)


# ---- SavedModel ------------------------------------------------------------------------------------------------------


def _write_saved_model(traced: Traced, path: str, batch: int | None, quantize: str, images: Images) -> None:
    """Writes version 1 of a model in TF Serving's layout, with warm-up requests."""
    from seg.export import warmup

    folder = os.path.join(path, '1')
    traced.save(folder, batch, with_bytes=True)
    blank = {spec.name: np.zeros((batch or 1, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for spec in traced.specs}
    warmup.write(folder, [('serving_default', blank)])


def _describe_saved_model(path: str, description: Description) -> None:
    folder = os.path.join(newest_version(path), 'assets.extra')
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, MEMBER), 'w', encoding='utf-8') as file:
        file.write(description.text())


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def _write_onnx(traced: Traced, path: str, batch: int | None, quantize: str, images: Images) -> None:
    import onnx
    import tf2onnx

    function = traced.function(batch)
    model, _ = tf2onnx.convert.from_function(
        function,
        input_signature=function.input_signature,
        opset=_OPSET,
        # tf2onnx writes a selection as a sum of products, in which infinity times 0 is not a number.
        custom_op_handlers={'SelectV2': (_as_where, [])},
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    if quantize != 'none':
        _quantize_onnx(path, quantize, images)


def _as_where(context: Any, node: Any, name: str, arguments: Any) -> None:
    node.type = 'Where'


def _quantize_onnx(path: str, quantize: str, images: Images) -> None:
    from onnxruntime import quantization

    if quantize == 'dynamic':
        quantization.quantize_dynamic(path, path, op_types_to_quantize=['MatMul', 'Gemm'])
        return
    rows = iter({'images': pixels, 'sizes': sizes} for pixels, sizes in images)
    reader = type('Reader', (quantization.CalibrationDataReader,), {'get_next': lambda self: next(rows, None)})()
    quantization.quantize_static(path, path, reader, op_types_to_quantize=['Conv', 'MatMul', 'Gemm'], per_channel=True)


def _describe_onnx(path: str, description: Description) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {ONNX_KEY: description.text()})
    onnx.save(model, path)


# ---- TFLite ----------------------------------------------------------------------------------------------------------


def _write_tflite(traced: Traced, path: str, batch: int | None, quantize: str, images: Images) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(traced.saved_model(batch), signature_keys=['serving_default'])
    if quantize != 'none':
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == 'float16':
        converter.target_spec.supported_types = [tf.float16]
    if quantize == 'int8':

        def representative() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for pixels, sizes in images:
                one = {'images': pixels, 'sizes': sizes}
                yield 'serving_default', {name: np.repeat(value, batch, axis=0) for name, value in one.items()}

        converter.representative_dataset = representative
    content = converter.convert()
    with open(path, 'wb') as file:
        file.write(content)


def _describe_tflite(path: str, description: Description) -> None:
    """Appends a ZIP archive, as TFLite's own metadata library does for associated files: runtimes do not read it."""
    with open(path, 'rb') as file:
        content = file.read()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = content[: min(info.header_offset for info in archive.infolist())]
    with open(path, 'wb') as file:
        file.write(content)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(MEMBER, description.text())
        # A name of several lines would shift those after it.
        lines = (' '.join(name.splitlines()) for name in description.class_names)
        archive.writestr('labels.txt', ''.join(f'{line}\n' for line in lines))


# ---- OpenVINO --------------------------------------------------------------------------------------------------------


def _write_openvino(traced: Traced, path: str, batch: int | None, quantize: str, images: Images) -> None:
    import openvino

    os.makedirs(os.path.dirname(path), exist_ok=True)
    model = openvino.convert_model(traced.saved_model(batch))
    openvino.save_model(model, path, compress_to_fp16=quantize == 'float16')


def _describe_openvino(path: str, description: Description) -> None:
    import openvino

    model = openvino.Core().read_model(path)
    model.set_rt_info(description.text(), ONNX_KEY)
    # The weights are read from the file that is being replaced, so write beside it.
    folder = os.path.dirname(path)
    with tempfile.TemporaryDirectory(dir=folder) as other:
        openvino.save_model(model, os.path.join(other, os.path.basename(path)), compress_to_fp16=False)
        del model
        for name in os.listdir(other):
            os.replace(os.path.join(other, name), os.path.join(folder, name))


_EACH = ('none', 'float16', 'dynamic', 'int8')
FORMATS = {
    'saved_model': Format(
        'saved_model',
        ('tensorflow',),
        {'semantic': ('none',), 'instance': ('none',)},
        False,
        _write_saved_model,
        _describe_saved_model,
    ),
    'onnx': Format(
        'model.onnx',
        ('tf2onnx', 'onnx', 'onnxruntime'),
        {'semantic': ('none', 'int8'), 'instance': ('none', 'dynamic')},
        False,
        _write_onnx,
        _describe_onnx,
    ),
    'tflite': Format(
        'model.tflite',
        ('ai_edge_litert',),
        # The converter crashes while it calibrates a Mask R-CNN.
        {'semantic': _EACH, 'instance': ('none', 'float16', 'dynamic')},
        True,
        _write_tflite,
        _describe_tflite,
    ),
    'openvino': Format(
        'openvino/model.xml',
        ('openvino',),
        {'semantic': ('none', 'float16'), 'instance': ('none', 'float16')},
        False,
        _write_openvino,
        _describe_openvino,
    ),
}
