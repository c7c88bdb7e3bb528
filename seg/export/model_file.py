"""Exported files in their own runtimes, all with one call: canvas images in, named arrays out.

Runtimes are imported only here, each when a file of its format is opened. Nothing of seg is needed but messages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy as np

from seg import cores, files
from seg.errors import UserError, reason
from seg.export import postprocess
from seg.export.description import Description

# Where the description is within a file.
ONNX_KEY = 'seg'  # Among the custom metadata of an ONNX file, and the runtime information of OpenVINO's.
MEMBER = 'seg.json'  # In the ZIP archive of a TFLite file, in assets.extra of a SavedModel, and beside raw heads.
PATTERN = '*?['  # Characters with which TensorFlow finds no SavedModel.
SUFFIXES = {'saved_model': '', 'onnx': '.onnx', 'tflite': '.tflite', 'openvino': '.xml'}
EXPECTED = 'model.onnx, model.tflite, saved_model, openvino/model.xml or a folder with raw heads of --mode=export'


def open_model(path: str) -> ModelFile:
    """Opens an exported file.

    Args:
      path: `model.onnx`, `model.tflite`, the folder `saved_model`, `openvino/model.xml`, or a folder of `--raw_heads`;
        under any name.

    Raises:
      UserError: if there is no such file, it is damaged or was not written by `--mode=export`, or the package that runs
        it is not installed.
    """
    path = os.path.expanduser(path)
    if not os.path.exists(path):
        raise UserError(f'{path!r} does not exist; expected {EXPECTED}.')
    if os.path.isfile(os.path.join(path, MEMBER)):
        return _Heads(path)
    file = _opened(path)
    if file.description.heads:
        raise UserError(f'{path!r} is one of several networks: give the folder, {os.path.dirname(path)!r}.')
    return file


def _opened(path: str) -> ModelFile:
    if os.path.isdir(path):
        return _SavedModel(path)
    if kind := files.irregular(path):
        raise UserError(f'{path!r} is {kind}, expected a file.')
    kinds = {'.onnx': _Onnx, '.tflite': _TFLite, '.xml': _OpenVINO}
    kind = kinds.get(os.path.splitext(path)[1].lower())
    if kind is None:
        raise UserError(f'{path!r}: its ending is of no known format; expected {EXPECTED}.')
    return kind(path)


class ModelFile(ABC):
    """An exported file, open in its runtime. Several threads may use it at a time.

    Attributes:
      path: the file.
      description: the description stored in the file.
    """

    path: str
    description: Description

    def run(self, images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Predicts any number of images; a file of a fixed batch runs several times, and fills its last batch up.

        Args:
          images: uint8 [N, H, W, 3], RGB, each at the top left of the canvas; the values outside of it are ignored.
          sizes: int32 [N, 2], height and width of each image within the canvas.

        Returns:
          The outputs by name, as in `description.outputs`: [N, …] each.

        Raises:
          ValueError: if an array has another shape or dtype.
          UserError: if the runtime cannot run the file.
        """
        images, sizes = np.ascontiguousarray(images), np.ascontiguousarray(sizes, np.int32)
        expected = (len(images), *self.description.canvas, 3)
        if images.dtype != np.uint8 or images.shape != expected or sizes.shape != (len(images), 2) or not len(images):
            raise ValueError(
                f'images {images.dtype} {images.shape} and sizes {sizes.shape}; this file takes uint8 '
                f'[N, {expected[1]}, {expected[2]}, 3] and [N, 2]'
            )
        batch = self.description.batch or len(images)
        parts = []
        for first in range(0, len(images), batch):
            pixels, size = images[first : first + batch], sizes[first : first + batch]
            if missing := batch - len(pixels):
                pixels = np.concatenate([pixels, np.zeros((missing, *expected[1:]), np.uint8)])
                size = np.concatenate([size, np.ones((missing, 2), np.int32)])
            with _opening(self.path, 'run'):
                found = self.call({'images': pixels, 'sizes': size})
            parts.append({name: value[: batch - missing] for name, value in found.items()})
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @abstractmethod
    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch, by the names of inputs and outputs."""


class _Onnx(ModelFile):
    def __init__(self, path: str):
        runtime = _installed('onnxruntime', path)
        self.path = path
        with _opening(path):
            self._session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
            content = self._session.get_modelmeta().custom_metadata_map.get(ONNX_KEY)
        self.description = _described(path, content)
        self._names = [output.name for output in self._session.get_outputs()]

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = self._session.run(self._names, dict(inputs))
        return dict(zip(self._names, values, strict=True))


class _TFLite(ModelFile):
    def __init__(self, path: str):
        runtime = _installed('ai_edge_litert.interpreter', path)
        self.path, self._lock = path, threading.Lock()
        content = None
        with _opening(path), contextlib.suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(path) as archive:
            content = archive.read(MEMBER)
        self.description = _described(path, content)
        with _opening(path):
            interpreter = runtime.Interpreter(model_path=path, num_threads=cores.usable())
            interpreter.allocate_tensors()
            self._signature = interpreter.get_signature_runner('serving_default')

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:  # An interpreter has one set of buffers.
            return {name: np.array(value) for name, value in self._signature(**inputs).items()}


class _SavedModel(ModelFile):
    def __init__(self, path: str):
        self.path = path
        folder = newest_version(path)
        content = None
        with (
            _opening(path),
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(folder, 'assets.extra', MEMBER), 'rb') as file,
        ):
            content = file.read()
        self.description = _described(path, content)
        if set(path) & set(PATTERN):
            raise UserError(f'{path!r}: TensorFlow takes {" ".join(PATTERN)} in a path for a pattern. Move the folder.')
        tf = _installed('tensorflow', path)
        with _opening(path):
            self._model = tf.saved_model.load(folder)  # The signature does not keep it alive.
            self._signature = self._model.signatures['serving_default']
        self._tensor = tf.constant

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._signature(**{name: self._tensor(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}


class _OpenVINO(ModelFile):
    def __init__(self, path: str):
        openvino = _installed('openvino', path)
        self.path, self._local = path, threading.local()
        with _opening(path):
            core = openvino.Core()
            model = core.read_model(path)
            content = str(model.get_rt_info(ONNX_KEY).value) if model.has_rt_info(ONNX_KEY) else None
        self.description = _described(path, content)
        with _opening(path):
            self._compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        self._names = [output.get_any_name() for output in self._compiled.outputs]

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not hasattr(self._local, 'request'):  # A request has one set of buffers.
            self._local.request = self._compiled.create_infer_request()
        found = self._local.request.infer(dict(inputs))
        return {name: np.array(found[i]) for i, name in enumerate(self._names)}


class _Heads(ModelFile):
    """The three networks of `--raw_heads`, with their post-processing in numpy."""

    def __init__(self, path: str):
        self.path = path
        self.description = _described(path, files.read_bytes(os.path.join(path, MEMBER)))
        suffix = SUFFIXES[self.description.format]
        self._networks = {}
        for name in postprocess.NETWORKS:
            part = os.path.join(path, name + suffix)
            if not os.path.exists(part):
                raise UserError(f'{part!r} does not exist, and {path!r} needs it: export the run again.')
            self._networks[name] = _opened(part)

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        run = lambda name, values: self._networks[name].call(values)  # noqa: E731
        return postprocess.detect(run, **inputs, settings=self.description.heads['settings'])


def newest_version(path: str) -> str:
    """The folder with a SavedModel: the one of the highest number, as TF Serving takes it, or `path` itself.

    Raises:
      UserError: if there is none.
    """
    with _opening(path):
        versions = [name for name in os.listdir(path) if name.isdecimal()]
    folder = os.path.join(path, max(versions, key=int)) if versions else path
    if not os.path.exists(os.path.join(folder, 'saved_model.pb')):
        raise UserError(f'{path!r} is a folder without a SavedModel; expected {EXPECTED}.')
    return folder


def _installed(module: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition('.')[0]):
            raise
        raise UserError(f"{path!r} needs {module.partition('.')[0]}: pip install -e '.[export]' installs it.") from None


@contextlib.contextmanager
def _opening(path: str, action: str = 'be opened') -> Iterator[None]:
    """Turns a runtime's error about a file into a message."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f'{path!r} cannot {action}: {reason(error)}. It may be damaged: export the run again.'
        ) from error


def _described(path: str, content: str | bytes | None) -> Description:
    if not content:
        raise UserError(
            f'{path!r} has no description: it is truncated, or was not written by --mode=export. Expected {EXPECTED}.'
        )
    return Description.read(content, repr(path))
