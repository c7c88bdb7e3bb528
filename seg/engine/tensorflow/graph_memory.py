"""The memory that training steps take, estimated from the graph of a step before it runs."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

# Operations whose result is their first input's buffer.
_VIEWS = {
    *('Identity', 'Reshape', 'StopGradient', 'Squeeze', 'ExpandDims', 'PreventGradient', 'CheckNumerics'),
    *('ReadVariableOp', 'Placeholder', 'Const'),  # In the state, or in no memory that counts.
}
# Element by element: they write into the buffer of an input that nothing else needs.
_IN_PLACE = {
    *('Relu', 'Relu6', 'ReluGrad', 'Relu6Grad', 'Sigmoid', 'SigmoidGrad', 'Tanh', 'Softmax', 'LogSoftmax', 'BiasAdd'),
    *('Add', 'AddV2', 'AddN', 'Sub', 'Mul', 'RealDiv', 'Maximum', 'Minimum', 'Neg', 'Exp', 'Log', 'Sqrt', 'Rsqrt'),
    *('Square', 'SelectV2', 'FusedBatchNormGradV3'),
}
# What comes on top of `peak`, fitted on a CPU to trainings like those in docs/small_memory.md.
_PEAK_FACTOR = 1.35  # Operations run in another order, two at a time, with room to work in; freed memory has gaps.
_WEIGHTS_FACTOR = 7  # Weights in the layouts of the kernels, and what writing a checkpoint copies.
_FIXED = 200 * 2**20  # Compiled kernels, the optimized graph, threads.


def needed(graphs: Iterable[tf.Graph], weights: Iterable[keras.Variable]) -> int:
    """Bytes that steps and checkpoints take on all devices, besides what is used after the tracing.

    Args:
      graphs: of the steps of the replicas.
      weights: variables that are trained.
    """
    size = sum(int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size for variable in weights)
    return int(_PEAK_FACTOR * sum(map(peak, graphs)) + _WEIGHTS_FACTOR * size + _FIXED)


def peak(graph: tf.Graph) -> int:
    """Bytes of the tensors that exist at a time, if the operations run one by one in the order of their making.

    That is the order of the forward pass, then of the gradient backwards, so what counts most are the tensors that the
    gradient reads again. The bodies of loops and functions do not count, nor do sizes that only the run will know.
    """
    operations = graph.get_operations()
    owner: dict[int, int] = {}  # The tensor whose buffer a tensor is in.
    last: dict[int, int] = {}  # The last operation that reads a buffer.
    for place, operation in enumerate(operations):
        inputs = [id(tensor) for tensor in operation.inputs]
        for tensor in operation.outputs:
            shares = operation.type in _VIEWS and inputs
            owner[id(tensor)] = owner.get(inputs[0], inputs[0]) if shares else id(tensor)
        for tensor in inputs:
            last[owner.get(tensor, tensor)] = place
    freed: dict[int, int] = collections.defaultdict(int)  # Bytes that end with an operation.
    sizes = [0 if operation.type in _VIEWS else sum(map(_bytes, operation.outputs)) for operation in operations]
    for place, operation in enumerate(operations):
        if operation.type not in _VIEWS:
            for tensor in operation.outputs:
                freed[last.get(id(tensor), place)] += _bytes(tensor)
    exists = most = 0
    for place, operation in enumerate(operations):
        if operation.type in _IN_PLACE:
            exists -= freed[place]
            freed[place] = 0
        exists += sizes[place]
        most = max(most, exists)
        exists -= freed[place]
    return most


def _bytes(tensor: tf.Tensor) -> int:
    known = tensor.shape.num_elements() if tensor.shape.rank is not None else None
    return (known or 0) * tensor.dtype.size if tensor.dtype not in (tf.resource, tf.variant, tf.string) else 0
