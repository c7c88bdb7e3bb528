"""A small set that TFDS itself writes: label maps of the values 1 to 3, and instances in TFDS' own forms."""

import io
import pathlib

import numpy as np
from PIL import Image
from tensorflow_datasets import features

from seg.datasets.records import tfds_folder

tfds = tfds_folder.library()
tfds.disable_progress_bar()
SIZE = (30, 40)
COUNT = 7


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, [*SIZE, 3], np.uint8)


def label(number):
    return np.random.default_rng(number).integers(1, 4, SIZE, np.uint8)


def mask(number, place):
    found = np.zeros(SIZE, np.uint8)
    found[2 * place : 2 * place + 5, number : number + 9] = 1
    return found


def jpeg(number):
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, 'JPEG')
    return file.getvalue()


class SmallPets(tfds.core.GeneratorBasedBuilder):
    """Seven images for training, with 0, 1 or 2 instances each, and ten for a test."""

    VERSION = tfds.core.Version('1.2.0')

    def _info(self):
        objects = {
            'bbox': features.BBoxFeature(),
            'label': features.ClassLabel(names=['cat', 'dog']),
            'mask': features.Image(shape=(None, None, 1)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    'image': features.Image(encoding_format='jpeg'),
                    'file_name': features.Text(),
                    'label': features.ClassLabel(num_classes=37),
                    'segmentation_mask': features.Image(shape=(None, None, 1)),
                    'objects': features.Sequence(objects),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, manager):
        return {'train': self._generate_examples(COUNT), 'test': self._generate_examples(10)}

    def _generate_examples(self, count):
        for number in range(count):
            yield (
                number,
                {
                    'image': io.BytesIO(jpeg(number)),
                    'file_name': f'pet_{number}.jpg',
                    'label': number,
                    'segmentation_mask': label(number)[..., None],
                    'objects': [
                        {
                            'bbox': features.BBox(0.1, 0.2, 0.5, 0.6),
                            'label': place,
                            'mask': mask(number, place)[..., None],
                        }
                        for place in range(number % 3)
                    ],
                },
            )


def write(folder, file_format='array_record'):
    """Prepares the set in a folder, as `tfds build` does. Returns the folder of its version."""
    builder = SmallPets(data_dir=folder, file_format=file_format)
    builder.download_and_prepare()
    return str(builder.data_dir)


def write_as_oxford(folder):
    """Prepares the set in a folder of sets under the name of the one that gin/deeplab_pets.gin reads."""
    prepared = pathlib.Path(write(folder)).parent
    prepared.rename(prepared.with_name('oxford_iiit_pet'))
