"""Rewrites a functional Keras model as a backbone: its graph is walked once, and each layer is made anew.

Decisions:

- Strides beyond the output stride become dilation, as in `seg.backbones.stages`: a layer keeps the dilation of the map
  that it reads, and the next ones get it multiplied by the stride. At every second cell the dilated network then
  computes what the strided one does. What reads a dilated map must be known to work cell by cell, or be a convolution
  or pooling; otherwise the model is refused at this output stride.
- Every convolution and pooling is placed on the project's grid (`layers.py`). Explicit padding in front of one is part
  of it, so it grows with the dilation. Networks trained with TensorFlow's SAME padding, or without padding in some
  layers, compute the published values if all sides are odd, and on a grid shifted by up to half a stride otherwise.
- Normalisation by a batch's statistics becomes our own layer, of the model's kind and momentum and with the layer's
  own epsilon. Layer and group normalisation stay.
- Dropout and stochastic depth are left out: random numbers here depend on the position of an example alone.
- Names that Keras has counted (`dense_7`) are counted within the model, so that checkpoints do not depend on what was
  built before.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.ops.numpy import Mean
from keras.src.utils.naming import to_snake_case

from seg.backbones.bridge.layers import (
    FixedSize,
    GlobalPool2D,
    Window,
    WindowConv2D,
    WindowDepthwiseConv2D,
    WindowPad,
    WindowPool2D,
)
from seg.backbones.stages import OUTPUT_STRIDES
from seg.errors import UserError, shown
from seg.layers.norm import BatchNorm, GroupNorm, NormFactory
from seg.layers.outside import ZeroOutside

LEVELS = {2: 'c1', 4: 'c2', 8: 'c3', 16: 'c4', 32: 'c5'}

_CONVS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_POOLS = {keras.layers.MaxPooling2D: 'max', keras.layers.AveragePooling2D: 'average'}
_WINDOWS = (*_CONVS, *_POOLS)
_MODELS = (Functional, keras.Sequential)
# Layers of Keras, and operations and layers of the libraries, that work cell by cell or on the map as a whole.
_POINTWISE = (
    keras.layers.Activation, keras.layers.Add, keras.layers.BatchNormalization, keras.layers.Concatenate,
    keras.layers.Dense, keras.layers.GlobalAveragePooling2D, keras.layers.GroupNormalization, keras.layers.Identity,
    keras.layers.LayerNormalization, keras.layers.Multiply, keras.layers.PReLU, keras.layers.ReLU,
    keras.layers.LeakyReLU, keras.layers.Rescaling, keras.layers.Softmax,
)  # fmt: skip
_POINTWISE_NAMES = re.compile(
    r'Add|Subtract|Multiply|Divide|TrueDivide|Relu6?|Gelu|Silu|Sigmoid|HardSigmoid|HardSilu|Tanh|Split|Cast|GetItem'
    r'|\w*(LayerScale|ScaleLayer|GlobalResponseNorm|LayerNorm|LayerNormalization|Affine|AffineBlock|Scale|ChannelSplit|Activation)'
)
_DROPOUT = re.compile(r'Dropout|SpatialDropout2D|\w*(StochasticDepth|DropPath)')
_GLOBAL_NAMES = re.compile(r'\w*GlobalResponseNorm')  # Statistics of the map: outside of the image must be zeros.


class Grid(NamedTuple):
    """Where a map's cells lie: its stride in pixels, and the dilation that replaces further strides."""

    stride: int = 1
    dilation: int = 1

    @property
    def nominal(self) -> int:
        """The stride of the map in the original model."""
        return self.stride * self.dilation


@dataclasses.dataclass(frozen=True)
class Source:
    """A functional model of another library, before it is rewritten.

    Attributes:
      model: the model, from [B, H, W, 3] to any outputs.
      name: its name, which the backbone gets.
      slot: the setting that names it, with its value, for messages.
      taps: its tensors that are the backbone's maps, the last of each stride; those that are missing are searched for.
    """

    model: keras.Model
    name: str
    slot: str
    taps: tuple[Any, ...] = ()


def rewritten(source: Source, pixels: Callable[[Any], Any], output_stride: int, norm: NormFactory) -> keras.Model:
    """Returns a backbone from [B, H, W, 3] RGB 0..255 to c1 (if the model has stride 2) to c5.

    Args:
      source: the model.
      pixels: scales the image as the model expects.
      output_stride: 8, 16 or 32.
      norm: makes the normalisation layers.

    Raises:
      UserError: if the output stride is no such number, or the model cannot be rewritten for it.
    """
    check_stride(source, output_stride)
    check_size(source, output_stride)
    with fresh_names():
        image, x = entry(source, pixels)
        walk = Walk(source, output_stride, norm)
        return finished(source, image, walk.maps(walk.run(x)))


def check_stride(source: Source, output_stride: int) -> None:
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f'output_stride = {shown(output_stride)}: {source.slot} has 8, 16 and 32.')


def check_size(source: Source, output_stride: int) -> None:
    """Refuses dilation of a model whose layers know the size of their maps."""
    if output_stride < 32 and None not in source.model.inputs[0].shape[1:3]:
        raise _undilated(
            source, output_stride, 'it is made for images of one size (if it need not be, leave image_size out)'
        )


def _undilated(source: Source, output_stride: int, reason: str) -> UserError:
    return UserError(
        f'output_stride = {output_stride}: {source.slot} cannot be dilated, because {reason}. Set an output stride of '
        '32, or choose another model.'
    )


def entry(source: Source, pixels: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Returns the backbone's image, and the pixels that the source's graph reads."""
    image = keras.Input((None, None, 3), name='image')
    size = tuple(source.model.inputs[0].shape[1:3])
    return image, pixels(image if None in size else FixedSize(size, source.slot, name='fixed_size')(image))


def finished(source: Source, image: Any, maps: dict[str, Any]) -> keras.Model:
    """Returns the backbone; its attribute `image_size` is (height, width) if it takes images of one size only."""
    net = keras.Model(image, maps, name=source.name)
    size = tuple(source.model.inputs[0].shape[1:3])
    net.image_size = None if None in size else size
    return net


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Context in which Keras counts the layers of each class from the beginning."""
    key = 'object_name_uids'
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before)


def operations(model: keras.Model, within: str = '') -> Iterator[tuple[Any, str]]:
    """Yields the operations of a model and of the models in it, with the names that they get in the backbone.

    A name is the operation's own, or, if Keras has counted it, its class and its number in the model.
    """
    counts: collections.Counter = collections.Counter()
    for operation in getattr(model, '_functional', model)._operations:
        kind, name = to_snake_case(type(operation).__name__), operation.name
        if re.fullmatch(rf'{kind}(_\d+)?', name):
            counts[kind] += 1
            name = f'{kind}_{counts[kind]}'
        if isinstance(operation, _MODELS):
            yield from operations(operation, f'{within}{name}_')
        else:
            yield operation, f'{within}{name}'


def arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """The values of a source model's variables by the paths that they have in the backbone."""
    values = {}
    for operation, name in operations(model):
        for variable in getattr(operation, 'variables', ()):
            if not variable.path.endswith('seed_generator_state'):  # Of dropout, which is left out.
                rest = variable.path.removeprefix(f'{operation.path}/')
                values[f'{name}/{rest}'] = keras.ops.convert_to_numpy(variable.value)
    return values


class Walk:
    """One pass over the graph."""

    def __init__(self, source: Source, output_stride: int, norm: NormFactory):
        self.source, self.output_stride, self.norm = source, output_stride, norm
        self.names = {id(operation): name for operation, name in operations(source.model)}
        self.made: dict[int, Any] = {}
        self.tensors: dict[int, Any] = {}  # By the id of the original tensor.
        self.grids: dict[int, Grid] = {}
        self.padded: dict[int, tuple] = {}  # Padding that the reader of a tensor takes over.
        self.num_windows = 0  # Of more than one cell, so far.
        self.side = source.model.inputs[0].shape[1]

    def run(self, image: Any) -> dict[int, Any]:
        """Copies the graph; returns, by stride, the map that a search finds (see `maps`)."""
        model = self.source.model
        self.tensors[id(model.inputs[0])] = image
        self.grids[id(model.inputs[0])] = Grid()
        nodes = list(self.nodes(model))
        readers = collections.Counter(id(x) for node in nodes for x in node.input_tensors)
        live, joints, mixed = {id(model.inputs[0])}, {}, set()
        for node in nodes:
            before = self.num_windows
            self.copy(node)
            for x in node.input_tensors:
                readers[id(x)] -= 1
            live |= {id(x) for x in node.outputs}
            live = {key for key in live if readers[key] > 0}
            x = node.outputs[0]
            stride = self.nominal(x)
            if self.num_windows > before:
                mixed.add(stride)
            if len(live | {id(x)}) == 1:  # Everything later reads this tensor alone.
                if stride in mixed or stride not in joints or x.shape[-1] <= joints[stride].shape[-1]:
                    joints[stride] = x
                mixed.discard(stride)
        return joints

    def nodes(self, model: keras.Model) -> Iterator[Any]:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            yield from (node for node in model._nodes_by_depth[depth] if node.operation and not node.is_input)

    def inner(self, model: keras.Model, x: Any, grid: Grid) -> tuple[Any, Grid]:
        """A model within the model, laid out in the graph."""
        model = model._functional if isinstance(model, keras.Sequential) else model
        self.tensors[id(model.inputs[0])], self.grids[id(model.inputs[0])] = x, grid
        for node in self.nodes(model):
            self.copy(node)
        return self.tensors[id(model.outputs[0])], self.grids[id(model.outputs[0])]

    def maps(self, joints: Mapping[int, Any]) -> dict[str, Any]:
        """The maps by level: the source's taps, and others where they lack a stride.

        Among the maps that alone lead on to all later ones, these are the narrowest behind the last window at the
        stride, and of equal ones the last. So the map of a stage is the end of its last block, and not the expansion
        with which the next one begins, nor the convolution in front of a classifier.
        """
        taps = {self.tap_stride(x): x for x in self.source.taps}
        taps = {**joints, **taps} if {4, 8, 16, 32} <= set(taps) else joints
        found = {level: taps[stride] for stride, level in LEVELS.items() if stride in taps}
        if lacking := {'c2', 'c3', 'c4', 'c5'} - set(found):
            raise UserError(
                f'{self.source.slot}: the model has no maps for {", ".join(sorted(lacking))}: those that it has are at '
                f'the strides {", ".join(map(str, sorted(taps)))}, expected 4, 8, 16 and 32. Choose another model.'
            )
        return {level: self.as_map(level, x) for level, x in sorted(found.items())}

    def as_map(self, level: str, x: Any) -> Any:
        """The new tensor; tokens [B, n * n, C] as [B, n, n, C]."""
        new = self.tensors[id(x)]
        if len(x.shape) == 4:
            return new
        return keras.layers.Reshape((math.isqrt(x.shape[1]),) * 2 + (x.shape[2],), name=f'{level}_map')(new)

    def tap_stride(self, x: Any) -> int:
        """The stride of a map, or of tokens [B, n * n, C]; 0 if it is neither."""
        if len(x.shape) == 3 and self.side and (rows := math.isqrt(x.shape[1])) ** 2 == x.shape[1]:
            return self.side // rows
        return self.nominal(x)

    def nominal(self, x: Any) -> int:
        """The stride of an original tensor; 0 if it is no map."""
        if len(x.shape) != 4:
            return 0
        if self.side is not None and x.shape[1]:
            return self.side // x.shape[1]
        return self.grids[id(x)].nominal

    def copy(self, node: Any) -> None:
        """Makes a node's operation and calls it on the new tensors."""
        operation = node.operation
        x = node.input_tensors[0]
        grids = [self.grids[id(tensor)] for tensor in node.input_tensors if len(tensor.shape) == 4]
        grid = max(grids, default=Grid(), key=lambda each: each.nominal)
        args, kwargs = node.arguments.fill_in(self.tensors)
        if self.is_left_out(operation, x):
            outputs = args[0]
        elif isinstance(operation, keras.layers.ZeroPadding2D) and self.is_folded(node):
            self.padded[id(node.outputs[0])] = operation.padding
            outputs = args[0]
        elif isinstance(operation, _MODELS):
            outputs, grid = self.inner(operation, args[0], grid)
        elif isinstance(operation, _WINDOWS):
            outputs, grid = self.window(operation, args[0], grid, self.padded.get(id(x)))
        else:
            self.check_dilatable(operation, node, grid)
            outputs = self.layer(operation)(*args, **kwargs)
        for old, new in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            self.tensors[id(old)] = new
            self.grids[id(old)] = grid

    def is_left_out(self, operation: Any, x: Any) -> bool:
        """Whether it is dropout, or scales pixels."""
        scales = isinstance(operation, keras.layers.Rescaling | keras.layers.Normalization) and x.shape[-1] == 3
        return scales or _DROPOUT.fullmatch(type(operation).__name__) is not None

    def is_folded(self, node: Any) -> bool:
        """Whether all that read a padded map are windows without padding of their own."""
        output = node.outputs[0]
        following = [each for each in node.operation._outbound_nodes if any(x is output for x in each.input_tensors)]
        return all(isinstance(n.operation, _WINDOWS) and n.operation.padding == 'valid' for n in following)

    def check_dilatable(self, operation: Any, node: Any, grid: Grid) -> None:
        known = type(operation) in _POINTWISE or _POINTWISE_NAMES.fullmatch(type(operation).__name__)
        known = known or _is_mean(operation)
        whole = all(len(x.shape) != 4 or tuple(x.shape[1:3]) == (1, 1) for x in node.input_tensors)
        if grid.dilation > 1 and not known and not whole:
            reason = f'its layer {operation.name!r} ({type(operation).__name__}) reads a map as it is'
            raise _undilated(self.source, self.output_stride, reason)

    def window(self, operation: Any, x: Any, grid: Grid, zeros: tuple | None) -> tuple[Any, Grid]:
        """Convolution or pooling on the grid; returns its map and its grid."""
        size = _size(operation)
        original = tuple(operation.strides)
        step = max(original)
        stride = min(step, max(self.output_stride // grid.stride, 1))
        after = Grid(grid.stride * stride, grid.dilation * (step // stride))
        own = getattr(operation, 'dilation_rate', (1, 1))
        window = Window(
            size=tuple(size),
            strides=(stride, stride) if step > 1 else (1, 1),
            dilation=tuple(grid.dilation * rate if k > 1 else 1 for k, rate in zip(size, own, strict=True)),
            tiles=step > 1 and tuple(size) == original and not zeros,
        )
        self.num_windows += not (window.alone and step == 1)
        name = self.names[id(operation)]
        if kind := _POOLS.get(type(operation)):
            return WindowPool2D(window, kind, bool(zeros), name)(x), after
        if id(operation) not in self.made:
            config = {**operation.get_config(), 'name': name, 'strides': window.strides, 'padding': 'valid'}
            config['dilation_rate'] = window.dilation
            if type(operation) is keras.layers.Conv2D:
                layer = WindowConv2D(window, **config)
            elif type(operation) is keras.layers.DepthwiseConv2D:
                layer = WindowDepthwiseConv2D(window, **config)
            else:
                layer = type(operation).from_config(config)
            self.made[id(operation)] = layer
        layer = self.made[id(operation)]
        if not isinstance(layer, WindowConv2D | WindowDepthwiseConv2D) and not window.alone:
            x = WindowPad(window, name=f'{name}_pad')(x)
        return layer(x), after

    def layer(self, operation: Any) -> Callable:
        """The operation anew: our own normalisation and pooling, the same settings otherwise."""
        if id(operation) not in self.made:
            self.made[id(operation)] = self._layer(operation, self.names[id(operation)])
        made = self.made[id(operation)]
        if isinstance(made, BatchNorm | GroupNorm | GlobalPool2D):
            return lambda x, **settings: made(x)
        if _GLOBAL_NAMES.fullmatch(type(operation).__name__):
            return lambda x, **settings: made(ZeroOutside(name=f'{made.name}_outside')(x), **settings)
        return made

    def _layer(self, operation: Any, name: str) -> Any:
        if isinstance(operation, keras.layers.BatchNormalization) and operation.axis in (-1, 3):
            return dataclasses.replace(self.norm, epsilon=operation.epsilon)(name=name)
        if type(operation) is keras.layers.GlobalAveragePooling2D or _is_mean(operation):
            return GlobalPool2D(operation.keepdims, name)
        if isinstance(operation, keras.layers.Lambda):
            return operation  # It has no variables, and its function cannot be copied.
        if type(operation) is keras.layers.Activation:
            return keras.layers.Activation(operation.activation, dtype=operation.dtype_policy, name=name)
        config = {**operation.get_config(), 'name': name}
        rates = {key: 0.0 for key, value in config.items() if 'drop' in key and isinstance(value, float)}  # Of dropout.
        config = {**config, **rates}
        if type(operation) is keras.layers.GroupNormalization:
            return GroupNorm(**config)
        with fresh_names():  # The layers within this one are counted anew.
            return type(operation).from_config(config)


def _size(operation: Any) -> tuple[int, int]:
    return operation.kernel_size if isinstance(operation, _CONVS) else operation.pool_size


def _is_mean(operation: Any) -> bool:
    """Whether it is the mean over the cells of a map."""
    return isinstance(operation, Mean) and tuple(operation.axis or ()) == (1, 2)
