"""Functions on symbolic tensors: their results and their exceptions."""

import keras
import pytest

from seg.errors import UnsavedError, UserError
from seg.tasks.traced import traced

IMAGE = keras.KerasTensor((2, 8, 6, 3), 'float32')


def test_what_is_returned_comes_back():
    layer = keras.layers.BatchNormalization()
    layer.build(IMAGE.shape)
    before = layer.moving_mean.numpy()

    def look(batch):
        made = layer(batch['image'], training=True)
        return tuple(made.shape), keras.backend.standardize_dtype(made.dtype)

    assert traced(look, {'image': IMAGE}) == ((2, 8, 6, 3), 'float32')
    assert (layer.moving_mean.numpy() == before).all()


@pytest.mark.parametrize(
    'error', [UserError('One message.'), UnsavedError('One.', {'x': 1}), ValueError('Theirs.'), KeyError(3)]
)
def test_what_is_raised_stays_as_it_is(error):
    def fail(image):
        raise error

    text = str(error)
    with pytest.raises(type(error)) as caught:
        traced(fail, IMAGE)
    assert caught.value is error and str(error) == text
