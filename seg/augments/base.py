"""The contract of augments, and helpers that change label maps and instances together.

An augment is a function `augment(example, seed)` that returns a changed copy of the example. It runs in the graph of
the input pipeline. `seed`, int32 [2], differs for every example, epoch and augment: all random numbers must
derive from it, by `tf.random.stateless_uniform` and the like, so that a resumed run repeats and misses no example.

An example is a dict. `FIELDS` lists its keys: `image` and `size` for every task, then those of the task's target. Keys
of a plugin's own target pass through with the dtype and the number of dimensions that they have. An augment must
keep:
- every key, with its dtype and its dimensions. More keys may be added; they are not read after the last augment.
- the valid part of the image, `size` pixels, stays at the top left. The area below and right of it is padding:
  `structures.PAD_PIXEL` in the image, the ignore label in `label`.
- `label`, `boxes` and `view` move with the image. The helpers here do this: `mirror`, `transpose` and `crop` for
  the geometry, `change_colors` for the values of pixels.
- all keys of instances have the same N. `instances.choose` drops instances.

The last augment of a task gives all images one static size (unless all images of the data set have one).

Masks of instances are never moved. Each keeps its own coordinates, the frame, and `view` maps the image to the frame: a
point (y, x) of the image is at `view[:, :2] @ (y, x) + view[:, 2]` in the frame.
Coordinates are continuous, the centre of the first pixel is at 0.5. A view may scale, mirror, shift and swap the axes,
so that one of the two numbers in each row of `view[:, :2]` is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seg.augments import instances
from seg.datasets.base import TARGETS, Field

Example = dict[str, tf.Tensor]
Augment = Callable[[Example, tf.Tensor], Example]

# Keys of an example between augments: those of every task, …
COMMON = {
    'image': Field(tf.float32, '[H, W, 3]', "RGB, 0 to 255; in Keras' floatx"),
    'size': Field(tf.int32, '[2]', 'height and width of the valid part, at the top left'),
}
# … and by target.
FIELDS = {
    'label_map': COMMON | TARGETS['label_map'],
    'instances': COMMON
    | TARGETS['instances']
    | {
        'frame': Field(tf.int32, '[N, 2]', 'height and width of the image that the mask belongs to'),
        'view': Field(tf.float32, '[N, 2, 3]', 'from a point (y, x, 1) of the image to the point in the frame'),
    },
}


def change_colors(example: Example, change: Callable[[tf.Tensor], tf.Tensor]) -> Example:
    """Changes the colours of the valid part of an image; the padding does not change.

    Args:
      example: with any keys.
      change: function from the valid part, [h, w, 3], to its new values, which are limited to 0 to 255.
    """
    image = example['image']
    height, width = tf.unstack(example['size'])
    inside = image[:height, :width]
    changed = tf.reshape(tf.clip_by_value(change(inside), 0.0, 255.0), tf.shape(inside))
    changed = tf.concat([tf.concat([changed, image[:height, width:]], axis=1), image[height:]], axis=0)
    return example | {'image': tf.ensure_shape(changed, image.shape)}


def mirror(example: Example, axis: int, when: bool | tf.Tensor = True) -> Example:
    """Mirrors the image with its label map or its instances.

    Args:
      example: with any target.
      axis: 0 swaps top and bottom, 1 left and right.
      when: scalar bool, such as `draw < 0.5`; if it is False, the example does not change.
    """
    side = example['size'][axis]
    places = tf.range(tf.shape(example['image'])[axis])
    source = tf.where(tf.logical_and(when, places < side), side - 1 - places, places)
    result = dict(example)
    for key in ('image', 'label'):
        if key in example:
            result[key] = tf.ensure_shape(tf.gather(example[key], source, axis=axis), example[key].shape)
    if 'view' in example:
        here = tf.logical_and(when, tf.range(2) == axis)
        factor, offset = tf.where(here, -1.0, 1.0), tf.where(here, tf.cast(side, tf.float32), 0.0)
        result = instances.move(result, factor, offset, example['size'])
    return result


def transpose(example: Example, when: bool | tf.Tensor = True) -> Example:
    """Swaps rows and columns. Together with `mirror` this gives rotations by 90 degrees.

    Args:
      example: with any target. The static size of an image that is not square is lost.
      when: scalar bool, such as `draw < 0.5`; if it is False, the example does not change.
    """
    swapped = tf.where(when, [1, 0], [0, 1])
    result = example | {'size': tf.gather(example['size'], swapped)}
    for key in ('image', 'label'):
        if key in example:
            height, width, *channels = example[key].shape
            order = tf.concat([swapped, tf.range(2, 2 + len(channels))], axis=0)
            sides = (height, width) if height == width else (None, None)
            result[key] = tf.ensure_shape(tf.transpose(example[key], order), (*sides, *channels))
    if 'view' in example:
        corners = tf.concat([swapped, swapped + 2], axis=0)
        result['boxes'] = tf.gather(example['boxes'], corners, axis=1)
        result['view'] = tf.gather(example['view'], tf.concat([swapped, [2]], axis=0), axis=2)
    return result


def crop(example: Example, start: tf.Tensor, size: tf.Tensor) -> Example:
    """Cuts a window out of the valid part; instances outside of it are dropped.

    Args:
      example: with any target.
      start: int32 [2], first row and column.
      size: int32 [2], height and width; the window lies within the valid part. Two Python numbers make a static size.
    """
    static = tf.get_static_value(tf.convert_to_tensor(size))
    start, size = tf.cast(start, tf.int32), tf.cast(size, tf.int32)
    result = example | {'size': size}
    for key in ('image', 'label'):
        if key in example:
            channels = example[key].shape[2:]
            window = tf.slice(example[key], [*tf.unstack(start), *[0] * len(channels)], [*tf.unstack(size), *channels])
            sides = (None, None) if static is None else static.tolist()
            result[key] = tf.ensure_shape(window, (*sides, *channels))
    if 'view' in example:
        result = instances.move(result, tf.ones([2]), tf.cast(start, tf.float32), size)
    return result
