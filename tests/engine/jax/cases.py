"""Small experiments whose steps both engines take: a ragged batch, everything that a step can do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from seg.engine.base import Trainer
from seg.engine.optimizer_step import OptimizerStep
from seg.structures import Input
from tests.executor import runs

# Numbers that float32 holds exactly: on TensorFlow, Keras keeps the settings of optimizers in it.
SGD = (
    'experiment.optimizer=@optimizers.sgd',
    'optimizers.sgd.momentum=0.875',
    'optimizers.sgd.schedule=@schedules.poly',
    'schedules.poly.base_lr=0.125',
    'schedules.poly.warmup_steps=2',
)
ADAMW = (
    'experiment.optimizer=@optimizers.adamw',
    'optimizers.adamw.schedule=@schedules.cosine',
    'schedules.cosine.base_lr=0.0078125',
    'optimizers.adamw.beta_1=0.875',
    'optimizers.adamw.beta_2=0.9990234375',
    'optimizers.adamw.epsilon=7.450580596923828e-09',
    'optimizers.adamw.weight_decay=0.0625',
)
AUXILIARY = ('models.deeplab_v3plus.aux_head=@heads.fcn', 'heads.fcn.channels=16')
BACKBONE = ('BACKBONE=@backbones.resnet18', 'backbones.resnet18.width=0.25')
DEEPLAB, RCNN, CASCADE = (
    (runs.SHAPES, (*BACKBONE, *AUXILIARY), 'models.deeplab_v3plus'),
    (runs.INSTANCES, BACKBONE, 'models.mask_rcnn'),
    (runs.INSTANCES, (*BACKBONE, *runs.CASCADE), 'models.cascade_rcnn'),
)
_PARTS = {'clip_norm': 1.0, 'ema_decay': 0.9, 'part_rates': {'backbone': 0.5}}
_FROZEN = ('backbone/stage2_*',)
_STEPS = {'sgd': (SGD, OptimizerStep(l2=1e-3, frozen=_FROZEN, **_PARTS)), 'adamw': (ADAMW, OptimizerStep(**_PARTS))}
_MODELS = {'deeplab': DEEPLAB, 'rcnn': RCNN, 'cascade': CASCADE}
# Names such as `deeplab_sync_sgd`: model, normalisation, optimizer.
CASES = tuple(f'{m}_{n}_{o}' for m in _MODELS for n in ('sync', 'frozen', 'group') for o in _STEPS)


def build(case: str, folder: str, precision: str, batch_size: int, engine: Any = None) -> tuple[Any, OptimizerStep]:
    """Returns the experiment of a case, and the settings of its step; without an engine, TensorFlow's on one device."""
    model, norm, optimizer = case.split('_')
    gin_file, params, slot = _MODELS[model] if model in _MODELS else _of_library(model)
    settings, step = _STEPS[optimizer]
    params = (*settings, *params, f'{slot}.norm="{norm}"', f'BATCH_SIZE={batch_size}')
    made = runs.build(folder, *params, precision=precision, gin_files=(gin_file,), engine=engine)
    return made, step


def _of_library(model: str) -> tuple[str, tuple[str, ...], str]:
    """DeepLab with another library's backbone: `zeromodels:resnet50`, and `zeromodels:swin.tiny:64` for one size."""
    library, name, *side = model.replace('.', '_').split(':')
    params = [f'BACKBONE=@backbones.{library}', f'backbones.{library}.name={name!r}']
    if side:
        params += [f'backbones.{library}.image_size={side[0]}', 'models.deeplab_v3plus.output_stride=32']
    # Where a gradient is near zero, a smaller epsilon would make its rounding a change of weights; networks of hundreds
    # of layers have such gradients.
    params.append('optimizers.adamw.epsilon=0.0001220703125')
    return runs.SHAPES, (*params, *AUXILIARY), 'models.deeplab_v3plus'


class Steps:
    """Steps of a trainer on one batch, in loops of any length."""

    def __init__(self, trainer: Trainer, batch: dict[str, np.ndarray]):
        self.trainer = trainer
        self.loop = trainer.loop(_endless(batch), 0)

    def take(self, count: int) -> dict[str, np.ndarray]:
        """Returns the results of some steps, by `result/<name>`, and the state after them, by `state/<name>`."""
        results = self.loop(count)._asdict()
        found = {f'result/{key}': value for key, value in results.items() if key != 'wait'}
        return found | {f'state/{name}': value for name, value in self.trainer.to_host().items()}

    def take_from(self, state: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """The same from a state of before, by `state/<name>`."""
        found = {name.removeprefix('state/'): value for name, value in state.items() if name.startswith('state/')}
        self.trainer.from_host(found, 'the other engine')
        return self.take(count)


def _endless(batch: dict[str, np.ndarray]) -> Input:
    one = runs.fixed_input([batch])
    return dataclasses.replace(one, make=lambda start=0, *cut, **named: one.make(0, *cut, **named).repeat())


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray], of: str = '') -> tuple[float, str]:
    """The largest |a - b| / (1 + |b|) of two results of `take`, and its name; infinite where names differ.

    Only names that begin with `of` are compared.
    """
    if one.keys() != other.keys():
        return np.inf, ', '.join(sorted(one.keys() ^ other.keys()))
    worst = 0.0, ''
    for name in filter(lambda name: name.startswith(of), one):
        a, b = np.asarray(one[name]), np.asarray(other[name])
        if a.dtype.kind not in 'fiu':
            far = 0.0 if np.array_equal(a, b) else np.inf
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            far = float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0))
        worst = max(worst, (far if np.isfinite(far) else np.inf, name))
    return worst
