"""Data sets without files, as readers return them without a folder."""

import pytest
import tensorflow as tf

from seg.datasets.coco import coco
from seg.datasets.voc_layout import voc_layout
from seg.errors import UserError


@pytest.mark.parametrize(
    ('reader', 'target', 'classes', 'largest'),
    [
        (voc_layout, 'label_map', 21, (500, 500)),
        (voc_layout, 'instances', 20, (500, 500)),
        (coco, 'instances', 80, (640, 640)),
    ],
)
def test_shapes_without_files(reader, target, classes, largest):
    dataset = reader(data_dir=None, target=target, split='val')
    assert (dataset.info.num_classes, dataset.info.max_size) == (classes, largest)
    examples = tf.data.Dataset.range(1).map(dataset.load)
    assert examples.element_spec['image'].shape.as_list() == [None, None, 3]  # As with files.
    (example,) = examples
    assert example['image'].shape[:2] == largest
    assert dataset.class_histogram().pixels.tolist() == [1] * classes
    with pytest.raises(UserError, match=f'datasets.{reader.__name__}.data_dir = None: expected'):
        dataset.verify()
