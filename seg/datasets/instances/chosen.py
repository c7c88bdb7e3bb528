"""Chooses images and classes among the instances of a data set."""

from __future__ import annotations

import numpy as np

from seg.datasets.class_maps import VOID, ClassMap
from seg.datasets.instances import flat
from seg.datasets.instances.flat import Instances


def of_images(instances: Instances, images: np.ndarray) -> Instances:
    """The instances of some images; `images` int64 [M], each once."""
    index = flat.rows(instances.splits, images)
    lengths = np.diff(instances.splits)[images]
    return flat.taken(instances, index)._replace(splits=flat.splits_of(lengths))


def of_classes(instances: Instances, classes: ClassMap, as_crowds: bool) -> Instances:
    """The instances with their classes by a class map.

    Args:
      instances: with the classes of the files.
      classes: the class map.
      as_crowds: whether instances of no class become crowds, in which detections are not errors. A crowd has a class,
        and stands for this class alone; so there is one for each class. Otherwise their class is `VOID`.
    """
    number = classes.ids[instances.classes]
    is_void = number == VOID
    if not (as_crowds and is_void.any()):
        return instances._replace(classes=number)
    every = len(classes.names)
    times = np.where(is_void, every, 1)
    index = np.repeat(np.arange(len(number)), times)
    place = np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)
    total = np.concatenate([[0], np.cumsum(times)])
    return flat.taken(instances, index)._replace(
        splits=total[instances.splits],
        classes=np.where(is_void[index], place, number[index]).astype(np.int32),
        is_crowd=instances.is_crowd[index] | is_void[index],
    )
