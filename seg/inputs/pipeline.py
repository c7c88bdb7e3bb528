"""Batches from data sets, addressed by position: batch number n does not depend on when and where it is made.

Position -> epoch and place -> seeded permutation of the epoch -> example -> stateless map. The pipeline has no state to
save, and a restart continues with the next image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from seg.datasets import checking, contract
from seg.datasets.base import Dataset
from seg.errors import UserError, reason, shown
from seg.inputs.rows import Example
from seg.structures import WHOLE, Input, Share

Prepare = Callable[[Example, tf.Tensor], Example]

_PARALLEL = 8  # Images that are read and augmented at a time: enough for many cores, little memory.
_TRIES = 8  # Number of examples that `any_example` tries.


def any_example(dataset: Dataset, seed: tf.Tensor, target: str | None = None) -> Example:
    """A loaded example, drawn by a seed (int32 [2]); if it cannot be read, the next readable one."""
    count = dataset.info.num_examples or 2**31 - 1
    first = tf.random.stateless_uniform([], seed, maxval=count, dtype=tf.int64, alg='philox')
    examples = tf.data.Dataset.range(min(count, _TRIES)).map(lambda i: load(dataset, (first + i) % count, target))
    return examples.ignore_errors().take(1).with_options(untuned()).get_single_element()


def load(dataset: Dataset, index: tf.Tensor, target: str | None) -> Example:
    """A loaded example; class ids that the contract of data sets excludes are an error in the graph.

    Raises:
      UserError: if the `load` of a plugin cannot be part of a graph, or returns tensors of unknown shapes.
    """
    return contract.asserted(contract.load_in_graph(dataset, index), dataset.info, target)


def training_input(
    dataset: Dataset,
    prepare: Prepare,
    blank: Mapping[str, Any],
    batch_size: int,
    seed: int,
    target: str | None = None,
) -> Input:
    """An endless stream of shuffled examples, every one once per epoch.

    Args:
      dataset: the data set.
      prepare: function from a loaded example and its seed (int32 [2]) to tensors of static shapes.
      blank: fill values of the example that replaces an unreadable one; 0 for other keys.
      batch_size: global batch size.
      seed: seed for the order, and for the random numbers of every example.
      target: what the task learns from; None for examples without a contract.
    """
    size = dataset.info.num_examples

    def index(position: tf.Tensor) -> tf.Tensor:
        if size is None:
            return position
        epoch = tf.cast(position // size, tf.int32)
        key = tf.stack([tf.constant(seed, tf.int32), epoch])
        return tf.random.experimental.index_shuffle(position % size, key, tf.constant(size - 1, tf.int64))

    return _input(dataset, prepare, blank, index, batch_size, None, seed, target)


def evaluation_input(
    dataset: Dataset, prepare: Prepare, blank: Mapping[str, Any], batch_size: int, target: str | None = None
) -> Input:
    """Every example once, in order; the last batch is filled up with examples of weight 0 and index -1.

    Raises:
      UserError: if the data set is endless.
    """
    count = dataset.info.num_examples
    if count is None:
        raise UserError(
            f'{dataset.info.name}: info.num_examples is None. An evaluation needs a number: it reads every image once.'
        )
    index = lambda position: tf.where(position < count, position, -1)  # noqa: E731
    return _input(dataset, prepare, blank, index, batch_size, count, 0, target)


def _input(
    dataset: Dataset,
    prepare: Prepare,
    blank: Mapping[str, Any],
    index: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int,
    count: int | None,
    seed: int,
    target: str | None,
) -> Input:
    def key_of(position: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(tf.constant([seed, 0], tf.int32), position)

    # A function of its own: it is traced once, whereas each place to begin at has its own pipeline.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2)
    def prepared(position: tf.Tensor, example_index: tf.Tensor) -> Example:
        key = key_of(position)
        element = prepare(load(dataset, example_index, target), key)
        return element | {'weight': tf.ones([], tf.float32), 'seed': key}

    traced = prepared.get_concrete_function()
    spec = tf.nest.map_structure(tf.type_spec_from_value, traced.structured_outputs)
    loose = [name for name, part in spec.items() if not part.shape.is_fully_defined()]
    if loose:
        raise ValueError(f'{dataset.info.name}: the prepared {", ".join(loose)} has no static shape.')

    def one(position: tf.Tensor) -> tf.data.Dataset:
        """The example, or a blank of weight 0 if it is padding or unreadable: later examples keep their places."""
        example_index = index(position)
        stand_in = {
            name: tf.broadcast_to(tf.cast(blank.get(name, 0), part.dtype), part.shape) for name, part in spec.items()
        }
        found = tf.data.Dataset.from_tensors(position).filter(lambda _: example_index >= 0)
        found = found.map(lambda p: traced(p, example_index)).ignore_errors()
        element = found.concatenate(tf.data.Dataset.from_tensors(stand_in)).take(1)
        return element.map(lambda e: e | {'index': tf.cast(example_index, tf.int32)})

    @functools.lru_cache(maxsize=2)  # A training begins with one for its figures, and evaluates many times.
    def cut(start: int, share: Share, pieces: int) -> tf.data.Dataset:
        if not 0 <= share.index < share.count or batch_size % (share.count * pieces):
            raise ValueError(f'a batch of {batch_size} rows cannot be divided for {share} into {pieces} piece(s) each.')
        rows = batch_size // share.count  # Rows of the share in one global batch.
        first = share.index * rows
        end = 2**62 // batch_size if count is None else -(-count // batch_size)

        def position(place: tf.Tensor) -> tf.Tensor:
            """Position in the whole stream of a row of the share."""
            return place // rows * batch_size + first + place % rows

        data = tf.data.Dataset.range(start * rows, end * rows, output_type=tf.int64)
        data = data.interleave(
            lambda place: one(position(place)),
            cycle_length=_PARALLEL,
            num_parallel_calls=_PARALLEL,
            deterministic=True,
        )
        return data.batch(rows // pieces, drop_remainder=True).prefetch(2 * pieces).with_options(untuned())

    def make(start: int = 0, share: Share = WHOLE, pieces: int = 1) -> tf.data.Dataset:
        return cut(start, share, pieces)

    def why_unreadable(place: int) -> str:
        position = tf.constant(place, tf.int64)
        example_index = index(position)
        name = dataset.image_name(int(example_index))
        with tf.device('CPU:0'):
            try:
                example = dataset.load(example_index)
            except Exception as error:
                if checking.unreadable(error):
                    return reason(error)
                what = f'{dataset.info.name}, image {shown(name)}: load'
                raise contract.load_failed(dataset, what, error) from error
            contract.check(example, dataset.info, name, target)
            try:
                prepare(example, key_of(position))
            except Exception as error:
                text = str(error) if isinstance(error, UserError) else f'preparing it failed: {reason(error)}'
                raise UserError(f'{dataset.info.name}, image {shown(name)}: {text}') from error
        return 'it can be read now, but could not a moment ago'

    return Input(make, batch_size, count, dataset.info.name, dataset.image_name, why_unreadable=why_unreadable)


def untuned() -> tf.data.Options:
    """Options without the tuner and without rewriting the pipeline, for data sets that fix all parallelism.

    The tuner's thread sleeps for up to a minute, and deleting an iterator waits for it: at the end of a process, or in
    Python's garbage collection. A rewritten pipeline takes longer to start, and reads no faster.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
