"""Normalisation layers: batch statistics over all replicas, frozen statistics, groups of channels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from seg.errors import UserError, shown
from seg.number_checks import check_number, check_whole
from seg.ops import dispatch
from seg.ops.replicas import num_replicas, sum_over_replicas
from seg.ops.valid_cells import valid_cells

KINDS = {
    'sync': 'batch normalisation over all replicas',
    'frozen': 'batch normalisation by stored statistics that never change; scale and offset are trained',
    'group': 'group normalisation, which does not depend on the batch',
}


@dataclasses.dataclass(frozen=True)
class NormFactory:
    """Makes the normalisation layers of a model, all of one kind.

    torchvision's ImageNet weights were trained with the default epsilon. With a momentum of 0.99 the moving statistics
    follow the data after about 500 steps; shorter runs need 0.9.

    Attributes:
      kind: 'sync', 'frozen' or 'group'.
      momentum: fraction of the old moving statistics that a step keeps; 'sync' only.
      epsilon: added to the variance.
      groups: 'group' only: number of groups, or, if it does not divide the channels, the next smaller number that
        does.
      slot: gin key of the part with these settings, such as `models.mask_rcnn`, for messages.

    Raises:
      UserError: if a setting is out of range.
    """

    kind: str = 'sync'
    momentum: float = 0.99
    epsilon: float = 1e-5
    groups: int = 32
    slot: str = 'NormFactory'

    def __post_init__(self):
        if self.kind not in KINDS:
            choices = '; '.join(f'{kind!r} ({meaning})' for kind, meaning in KINDS.items())
            raise UserError(f'{self.slot}.norm = {shown(self.kind)}: expected one of: {choices}.')
        check_number(f'{self.slot}.norm_momentum', self.momentum, 0, 1, below=True)
        check_number(f'{self.slot}.norm_epsilon', self.epsilon, above=True)
        check_whole(f'{self.slot}.groups', self.groups)

    def __call__(self, *, name: str, gamma_initializer: str = 'ones') -> keras.layers.Layer:
        """Returns a new layer, called as `layer(x, training=...)` on [B, H, W, C]."""
        if self.kind == 'group':
            return GroupNorm(self.groups, epsilon=self.epsilon, gamma_initializer=gamma_initializer, name=name)
        return BatchNorm(
            momentum=self.momentum,
            epsilon=self.epsilon,
            frozen=self.kind == 'frozen',
            gamma_initializer=gamma_initializer,
            slot=self.slot,
            name=name,
        )


class BatchNorm(keras.layers.Layer):
    """Batch normalisation with the same statistics on one and on many replicas.

    Statistics are of the global batch. Its n values per channel are all its cells, padding included. The variance is
    biased (sum / n) for normalising and unbiased (sum / (n - 1)) in the moving average, as in the paper and torch. On
    one replica a fused kernel computes them if there is one. On several, each replica adds sums of `x - pivot` and
    of its square, with the moving mean as the pivot: one reduction, and no cancellation once the pivot is near the
    mean. Statistics are float32 or better in every precision.

    Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2.
    """

    def __init__(
        self,
        *,
        momentum: float,
        epsilon: float,
        frozen: bool = False,
        gamma_initializer: str = 'ones',
        slot: str = 'NormFactory',
        name: str,
    ):
        super().__init__(name=name)
        self._slot = slot
        self.momentum = momentum
        self.epsilon = epsilon
        self.frozen = frozen
        self.gamma_initializer = gamma_initializer

    def build(self, input_shape: tuple) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> Any:
            # No aggregation: every replica computes the same statistics and stores them in its own copy.
            return self.add_weight(
                shape=(input_shape[-1],),
                initializer=initializer,
                name=name,
                trainable=trainable,
                autocast=False,
            )

        self.gamma = weight('gamma', self.gamma_initializer, True)
        self.beta = weight('beta', 'zeros', True)
        self.moving_mean = weight('moving_mean', 'zeros', False)
        self.moving_variance = weight('moving_variance', 'ones', False)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def is_stored(self, training: bool) -> bool:
        """Returns whether `call` normalises by stored statistics, as `affine` does."""
        return not training or self.frozen or not self.trainable

    def call(self, x: Any, training: bool = False) -> Any:
        """Normalises [B, ..., C], by the batch's statistics when training and not frozen.

        Raises:
          UserError: if these would be of one value per channel.
        """
        if self.frozen or not self.trainable:
            # Not the fused kernel: with stored statistics, its gradient is not deterministic on a GPU.
            return self._scale(x, *self.affine())
        dtype = keras.backend.standardize_dtype(x.dtype)
        replicas = num_replicas() if training else 1
        if training:
            self._check_values(x, replicas)
        if replicas == 1 and len(x.shape) == 4 and dispatch.has_fused_batch_norm(dtype):
            weights = (self.gamma, self.beta, self.moving_mean, self.moving_variance)
            gamma, beta, *moving = (ops.convert_to_tensor(weight) for weight in weights)
            y, mean, variance = dispatch.fused_batch_norm(x, gamma, beta, *moving, self.epsilon, bool(training))
        elif training:
            mean, variance = self._moments(x, replicas)
            y = self._scale(x, *self._affine(mean, variance))
            count = replicas * ops.cast(ops.size(x) // x.shape[-1], variance.dtype)
            variance = variance * (count / (count - 1))
        else:
            return self._scale(x, *self.affine())
        if training:
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance)
        return y

    def _check_values(self, x: Any, replicas: int) -> None:
        """Refuses a single value per channel: its variance is 0, and an evaluation with that would be meaningless."""
        if None not in x.shape and replicas * math.prod(x.shape[:-1]) == 1:
            raise UserError(
                f"{self._slot}.norm = 'sync': the batch normalisation {self.path!r} receives one value per channel, "
                f'{tuple(x.shape)!r}, in a global batch of 1 image. A variance needs at least 2. Set '
                f"{self._slot}.norm = 'group' or 'frozen', or RunConfig.batch_size = 2 or more."
            )

    def _moments(self, x: Any, replicas: int) -> tuple[Any, Any]:
        """Returns mean and biased variance of the global batch, [C] each."""
        x = ops.cast(x, self.variable_dtype)
        axes = list(range(len(x.shape) - 1))
        if replicas == 1:
            return ops.moments(x, axes)
        pivot = ops.stop_gradient(ops.convert_to_tensor(self.moving_mean))
        x = x - pivot
        local = ops.stack([ops.mean(x, axes), ops.mean(ops.square(x), axes)])
        first, second = ops.unstack(sum_over_replicas(local) / replicas, 2)
        return first + pivot, ops.maximum(second - ops.square(first), 0)

    def affine(self) -> tuple[Any, Any]:
        """Returns `(scale, offset)`, [C] each: normalising by stored statistics is `x * scale + offset`."""
        return self._affine(self.moving_mean, self.moving_variance)

    def _affine(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)
        return scale, self.beta - mean * scale

    def _scale(self, x: Any, scale: Any, offset: Any) -> Any:
        return ops.cast(ops.cast(x, self.variable_dtype) * scale + offset, self.compute_dtype)

    def _update(self, moving: Any, value: Any) -> None:
        moving.assign(moving * self.momentum + ops.stop_gradient(value) * (1 - self.momentum))


class GroupNorm(keras.layers.GroupNormalization):
    """Group normalisation over the cells of the image without its padding.

    The number of groups is the largest one up to `groups` that divides the channels.

    Wu and He, "Group Normalization", ECCV 2018.
    """

    def build(self, input_shape: tuple) -> None:
        channels = input_shape[-1]
        self.groups = max(g for g in range(1, min(self.groups, channels) + 1) if channels % g == 0)
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """Normalises [B, ..., C]."""
        exact = keras.backend.result_type(x.dtype, 'float32')
        cells = valid_cells(x, exact)
        if cells is None:
            return super().call(x)
        height, width, channels = x.shape[1:]
        cells = ops.reshape(cells, (-1, height * width, 1, 1))
        grouped = ops.reshape(ops.cast(x, exact), (-1, height * width, self.groups, channels // self.groups))
        count = ops.sum(cells, axis=1, keepdims=True) * (channels // self.groups)
        mean = ops.sum(grouped * cells, axis=(1, 3), keepdims=True) / count
        centred = grouped - mean
        variance = ops.sum(ops.square(centred) * cells, axis=(1, 3), keepdims=True) / count
        normed = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), (-1, height, width, channels))
        return ops.cast(normed * ops.cast(self.gamma, exact) + ops.cast(self.beta, exact), self.compute_dtype)
