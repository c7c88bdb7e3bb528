"""Checks that the parts of a run fit together, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg import registry
from seg.errors import UserError, shown
from seg.structures import DatasetInfo, Input


def same_classes(train: DatasetInfo, evaluation: DatasetInfo) -> None:
    """Refuses data sets whose classes differ in a name or in their order.

    Raises:
      UserError: the message has both lists.
    """
    if train.class_names != evaluation.class_names:
        lists = '\n'.join(f'  {info.name}: {listed(info.class_names)}' for info in (train, evaluation))
        raise UserError(
            f'The classes of the training data are not those of the evaluation data:\n{lists}\n'
            'Class id = position in the list: both need the same names in the same order.'
        )


def image_size(backbone: Any, inputs: Sequence[Input]) -> None:
    """Refuses inputs of another size than the one that a backbone is made for; see `BackboneSpec.of`.

    Raises:
      UserError: the message has both sizes.
    """
    expected = getattr(backbone, 'image_size', None)
    for source in inputs if expected else ():
        size = tuple(source.make().element_spec['image'].shape[1:3])
        if size != tuple(expected):
            raise UserError(
                f'Backbone {backbone.name} is made for images of {expected[0]} x {expected[1]} pixels, and those of '
                f'{source.name} have {size[0]} x {size[1]}. Set its image_size, the crops (CROP), and the sizes of '
                'evaluation and prediction to the same.'
            )


def best_metric(name: str, metrics: Sequence[Any], losses: Sequence[str]) -> None:
    """Refuses a `RunConfig.best_metric` that an evaluation does not return.

    Args:
      name: the setting.
      metrics: metrics of the task.
      losses: names of the task's losses in an evaluation.

    Raises:
      UserError: the message has similar names and all known names.
    """
    known = [known for metric in metrics for known in metric.names()]
    if losses:
        known += ['loss', *(f'loss/{loss}' for loss in losses)]
    if name not in known:
        hints = ''.join(f' Did you mean {near!r}?' for near in registry.near_misses(name, known)[:1])
        raise UserError(
            f'RunConfig.best_metric = {shown(name)}: an evaluation of this task does not return it.{hints} There are '
            f'{", ".join(known)}.'
        )


def listed(names: Sequence[str]) -> str:
    """Class names for a message, in quotes, so that a space at the end of a name is visible."""
    return ', '.join(map(shown, names))
