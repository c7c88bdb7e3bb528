"""Batches by position: any step's batch can be made again, on any number of replicas."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from seg import registry
from seg.datasets.base import Dataset, FirstExamples
from seg.datasets.records import conversion
from seg.datasets.tfds import tfds
from seg.errors import UserError
from seg.inputs import augmentation, pipeline
from seg.registry import augments
from seg.structures import WHOLE, DatasetInfo, Share
from tests.datasets import small

SEED = 5


class Numbers(Dataset):
    """Example n is n squared; negative ones and those in `broken` cannot be loaded."""

    def __init__(self, count, broken=()):
        self.info = DatasetInfo('numbers/train', ('a',), count, (1, 1))
        self._broken = tuple(broken)

    def load(self, index):
        bad = tf.reduce_any(tf.equal(index, tf.constant(self._broken or (-1,), tf.int64)))
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(bad) & (index >= 0), ['no such number'])]):
            return {'value': tf.identity(index) ** 2}

    def image_name(self, index):
        return str(index)


def prepare(example, seed):
    noise = tf.random.stateless_uniform([], seed)
    return {'value': tf.cast(example['value'], tf.int32), 'noise': noise}


def training(count=10, batch_size=4, broken=(), seed=SEED, dataset=None):
    return pipeline.training_input(dataset or Numbers(count, broken), prepare, {'value': -7}, batch_size, seed)


class Records(Numbers):
    """The numbers are in records: the value of all pixels of an image."""

    def __init__(self, folder):
        source = small.LabelMaps()
        source.info = dataclasses.replace(source.info, num_examples=10)
        conversion.convert(conversion.plan({'train': source}, 'label_map'), str(folder))
        super().__init__(10)
        self._records = tfds(name=str(folder))

    def load(self, index):
        return {'value': tf.cast(self._records.load(index)['image'][0, 0, 0], tf.int64) ** 2}


@pytest.fixture(scope='module')
def on_records(tmp_path_factory):
    return functools.partial(training, dataset=Records(tmp_path_factory.mktemp('records')))


def read(source, batches=None, start=0, share=WHOLE, pieces=1):
    data = source.make(start, share, pieces)
    data = data if batches is None else data.take(batches)
    return [{key: value.numpy() for key, value in batch.items()} for batch in data]


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def assert_equal(one, two):
    assert len(one) == len(two)
    for batch, other in zip(one, two, strict=True):
        assert batch.keys() == other.keys() == {'value', 'noise', 'weight', 'index', 'seed'}
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], key)


def test_every_example_once_per_epoch_in_another_order():
    index = joined(read(training(), 10), 'index').reshape(4, 10)
    for epoch in index:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in index}) == 4
    assert not any(np.array_equal(epoch, np.arange(10)) for epoch in index)


def test_values_belong_to_their_index():
    batches = read(training(), 5)
    np.testing.assert_array_equal(joined(batches, 'value'), joined(batches, 'index') ** 2)
    assert np.all(joined(batches, 'weight') == 1)


@pytest.mark.parametrize('start', [1, 4, 7])
def test_batch_n_is_the_same_from_any_start(start):
    whole = read(training(), 9)
    assert_equal(read(training(), 9 - start, start=start), whole[start:])


def test_far_away_positions():
    """Also where positions do not fit into 32 bits."""
    start = 2**31
    one, two = read(training(), 2, start=start), read(training(), 1, start=start + 1)
    assert_equal(one[1:], two)
    assert np.all((joined(one, 'index') >= 0) & (joined(one, 'index') < 10))


def test_order_and_randomness_follow_from_the_seed():
    batches, again, other = read(training(), 5), read(training(), 5), read(training(seed=6), 5)
    assert_equal(batches, again)
    assert not np.array_equal(joined(batches, 'index'), joined(other, 'index'))
    assert not np.intersect1d(joined(batches, 'noise'), joined(other, 'noise')).size


def test_every_example_has_a_seed_of_its_own():
    """The same image has another one in every epoch."""
    batches = read(training(), 50)
    assert len({tuple(seed) for seed in joined(batches, 'seed')}) == 200
    assert len(set(joined(batches, 'noise'))) > 195


def evaluation(count=7, batch_size=4):
    return pipeline.evaluation_input(Numbers(count), prepare, {}, batch_size)


def side_by_side(*streams):
    """Batch n of each stream, one below the other."""
    return [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in zip(*streams, strict=True)
    ]


@pytest.mark.parametrize('make', [training, evaluation])
def test_replicas_share_the_global_batch(make):
    """Replica r of 2 gets batches r, r + 2, …; two in a row are one global batch."""
    whole = read(make(), 2)
    halves = read(make(), 4, pieces=2)
    assert [len(batch['index']) for batch in halves] == [2] * 4
    assert_equal(side_by_side(halves[::2], halves[1::2]), whole)
    assert_equal(read(training(), 2, start=3, pieces=2), read(training(), 8, pieces=2)[6:])


@pytest.mark.parametrize('make', [training, evaluation, 'on_records'])
@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_the_global_batch(make, count, request):
    """Together they make each row of every global batch exactly once, from any step on."""
    make = request.getfixturevalue(make) if isinstance(make, str) else make
    whole = read(make(), 2)
    parts = [read(make(), 2, share=Share(i, count)) for i in range(count)]
    assert all(len(batch['index']) == 4 // count for part in parts for batch in part)
    assert_equal(side_by_side(*parts), whole)
    seeds = [{tuple(seed) for seed in joined(part, 'seed')} for part in parts]
    assert len(set.union(*seeds)) == sum(map(len, seeds)), 'two processes made the same row'
    assert_equal(side_by_side(*(read(make(), 1, 1, Share(i, count)) for i in range(count))), whole[1:])


def test_two_processes_read_an_epoch_once():
    parts = [read(training(12), 3, share=Share(i, 2)) for i in range(2)]
    assert sorted(np.concatenate([joined(part, 'index') for part in parts])) == list(range(12))


def test_process_with_several_replicas():
    """Its pieces, one after the other, are its rows."""
    whole = read(training(batch_size=8), 3)
    pieces = [read(training(batch_size=8), 6, 0, Share(i, 2), 2) for i in range(2)]
    assert_equal(side_by_side(*(part[i::2] for part in pieces for i in range(2))), whole)


@pytest.mark.parametrize(('share', 'pieces'), [(Share(2, 2), 1), (Share(-1, 2), 1), (Share(0, 3), 1), (Share(0, 2), 4)])
def test_share_that_does_not_divide(share, pieces):
    with pytest.raises(ValueError, match='a batch of 4 rows cannot be divided for Share'):
        training().make(0, share, pieces)


@pytest.mark.parametrize('batch_size', [1, 3, 7, 10])
def test_evaluation_has_every_example_once_in_order(batch_size):
    source = pipeline.evaluation_input(Numbers(7), prepare, {'value': -7}, batch_size)
    batches = read(source)
    assert len(batches) == -(-7 // batch_size)
    index, weight = joined(batches, 'index'), joined(batches, 'weight')
    assert len(index) == len(batches) * batch_size
    assert index[:7].tolist() == list(range(7)) and np.all(weight[:7] == 1)
    assert np.all(index[7:] == -1) and np.all(weight[7:] == 0) and np.all(joined(batches, 'value')[7:] == -7)


def test_unreadable_examples_become_blanks():
    whole, damaged = read(training(), 6), read(training(broken=[3, 8]), 6)
    hit = np.isin(joined(whole, 'index'), [3, 8])
    assert hit.any()
    np.testing.assert_array_equal(joined(damaged, 'index'), joined(whole, 'index'))
    np.testing.assert_array_equal(joined(damaged, 'weight'), ~hit)
    np.testing.assert_array_equal(joined(damaged, 'value'), np.where(hit, -7, joined(whole, 'value')))
    np.testing.assert_array_equal(joined(damaged, 'seed')[~hit], joined(whole, 'seed')[~hit])


def test_why_an_example_was_not_read():
    source = training(broken=[3])
    index = joined(read(source, 3), 'index')
    assert 'no such number' in source.why_unreadable(int(np.flatnonzero(index == 3)[0]))
    assert source.why_unreadable(int(np.flatnonzero(index != 3)[0])) == 'it can be read now, but could not a moment ago'


def failing(example, seed):
    """An augmentation that fails for values above 16."""
    with tf.control_dependencies([tf.debugging.Assert(example['value'] <= 16, ['too large:', example['value']])]):
        return {'value': tf.identity(example['value'])}


def test_an_augmentation_that_fails_is_no_unreadable_file():
    with registry.temporary():

        @augments.register('failing')
        def builder():
            """Fails for values above 16."""
            return failing

        (augment,) = augmentation.build(augments.check_each([builder], 'augments'), 'augments', 'numbers')
    source = pipeline.training_input(Numbers(10), lambda e, s: prepare(augment(e, s), s), {}, 10, SEED)
    (batch,) = read(source, 1)
    assert sorted(batch['index'][batch['weight'] == 0]) == [5, 6, 7, 8, 9]
    place = int(np.flatnonzero(batch['index'] == 7)[0])
    with pytest.raises(UserError, match=r"(?s)numbers/train, image '7': augments\[0\]: @augments.failing .*failed.*49"):
        source.why_unreadable(place)
    with pytest.raises(UserError, match="(?s)numbers/train, image '7': preparing it failed: .*too large"):
        pipeline.training_input(Numbers(10), failing, {}, 10, SEED).why_unreadable(place)


class Labels(Dataset):
    """Four images of 8 x 8 pixels; the label of number 2 holds a 52."""

    info = DatasetInfo('labels/train', ('a', 'b'), 4, (8, 8))

    def load(self, index):
        label = tf.where(index == 2, 52, 1) * tf.one_hot(3, 64, dtype=tf.int32)
        return {'image': tf.zeros([8, 8, 3], tf.uint8), 'label': tf.reshape(label, [8, 8])}

    def image_name(self, index):
        return f'image {index}'


def test_an_invalid_label_is_found_at_any_step():
    source = pipeline.evaluation_input(Labels(), lambda example, seed: example, {}, 4, 'label_map')
    (batch,) = read(source)
    assert batch['weight'].tolist() == [1, 1, 0, 1]
    with pytest.raises(UserError, match=r"labels/train, image 'image 2': label holds 52 \(1 pixels\).* 0..1 "):
        source.why_unreadable(2)


def asked(path, index):
    """What a plugin's code may do with one of its files."""
    if index == 1:
        raise OSError(f'{path} is cut off')
    return np.full(6, {0: 0, 3: 1}[int(index)], np.int32)  # There is no 2.


class FromPython(Labels):
    """Loads by Python code, in the way that is given: image 1 cannot be read, image 2 is a mistake."""

    def __init__(self, call):
        self._call = call

    def load(self, index):
        label = self._call(lambda i: asked('one.png', i), [index], tf.int32)
        return {'image': tf.zeros([2, 3, 3], tf.uint8), 'label': tf.reshape(label, [2, 3])}


@pytest.mark.parametrize('call', [tf.numpy_function, tf.py_function])
def test_a_mistake_in_the_code_of_a_data_set_is_no_unreadable_file(call):
    dataset = FromPython(call)
    source = pipeline.evaluation_input(dataset, lambda example, seed: example, {}, 4, 'label_map')
    (batch,) = read(source)
    assert batch['weight'].tolist() == [1, 0, 0, 1]
    assert source.why_unreadable(1) == 'OSError: one.png is cut off'
    few = pipeline.evaluation_input(FirstExamples(dataset, 3, ''), lambda example, seed: example, {}, 4, 'label_map')
    line = asked.__code__.co_firstlineno + 4
    for each in (source, few):
        with pytest.raises(UserError) as caught:
            each.why_unreadable(2)
        parts = ("labels/train, image 'image 2'", f'tests/inputs/test_pipeline.py:{line}: KeyError: 2')
        assert all(part in str(caught.value) for part in parts)


def test_a_load_that_fits_no_graph():
    class Eager(Labels):
        def load(self, index):
            return super().load(index.numpy())

    with pytest.raises(UserError) as caught:
        pipeline.evaluation_input(Eager(), lambda example, seed: example, {}, 4, 'label_map')
    line = Eager.load.__code__.co_firstlineno + 1
    parts = ('labels/train', f'tests/inputs/test_pipeline.py:{line}: AttributeError', 'numpy')
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(('key', 'sides'), [('image', '[None, None, 3]'), ('label', '[None, None]')])
def test_a_shape_that_the_graph_does_not_know(key, sides):
    class NoShape(Labels):
        def load(self, index):
            example = super().load(index)
            return example | {key: tf.numpy_function(lambda value: value, [example[key]], example[key].dtype)}

    with pytest.raises(UserError) as caught:
        pipeline.evaluation_input(NoShape(), lambda example, seed: example, {}, 4, 'label_map')
    parts = ('labels/train', f'{key} of shape <unknown>', f'tf.ensure_shape({key}, {sides})')
    assert all(part in str(caught.value) for part in parts)


def test_any_example_skips_unreadable_ones():
    seed = tf.constant([1, 2], tf.int32)
    drawn = int(pipeline.any_example(Numbers(10), seed)['value']) ** 0.5
    broken = Numbers(10, [int(drawn)])
    assert int(pipeline.any_example(broken, seed)['value']) == ((drawn + 1) % 10) ** 2
    in_graph = tf.data.Dataset.from_tensors(seed).map(lambda s: pipeline.any_example(broken, s))
    assert int(in_graph.get_single_element()['value']) == ((drawn + 1) % 10) ** 2


def test_epoch_smaller_than_a_batch():
    index = joined(read(training(count=3, batch_size=8), 3), 'index')
    for epoch in index.reshape(8, 3):
        assert sorted(epoch) == [0, 1, 2]


def test_single_example():
    assert np.all(joined(read(training(count=1), 2), 'index') == 0)


def test_endless_data():
    index = joined(read(training(count=None), 3), 'index')
    np.testing.assert_array_equal(index, np.arange(12))


def test_shapes_that_are_not_static():
    ragged = lambda example, seed: {'value': tf.range(example['value'])}  # noqa: E731
    with pytest.raises(ValueError, match='numbers/train: the prepared value has no static shape'):
        pipeline.training_input(Numbers(10), ragged, {}, 4, 0).make()
