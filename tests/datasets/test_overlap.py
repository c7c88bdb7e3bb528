"""Images that are in the training data and in the evaluation data."""

from seg.datasets import findings, overlap
from tests.datasets.small import LabelMaps


def test_images_that_are_in_both(caplog):
    """Equal names and pixels are reported; equal names of different images are not."""

    class Others(LabelMaps):
        def load(self, index):
            return super().load(index + 9)

    with caplog.at_level('WARNING'):
        findings.settle(overlap.shared(LabelMaps(), Others()))
    assert not caplog.records
    with caplog.at_level('WARNING'):
        findings.settle(overlap.shared(LabelMaps(), LabelMaps()))
    assert '5 of the 5 images of mine/train are also in mine/train' in caplog.text and "'image 0'" in caplog.text


def test_files_in_both(tmp_path, caplog):
    """Copies under other names are reported; other files of the same length or name are not."""

    class Files(LabelMaps):
        def image_path(self, index):
            return str(tmp_path / self.changes['folder'] / f'{index}')

    for folder in 'ab':
        (tmp_path / folder).mkdir()
        for n in range(5):
            (tmp_path / folder / f'{n}').write_text(f'{n}{folder}')
    with caplog.at_level('WARNING'):
        findings.settle(overlap.shared(Files(folder='a'), Files(folder='b')))
    assert not caplog.records
    (tmp_path / 'b' / '3').write_text('1a')
    with caplog.at_level('WARNING'):
        findings.settle(overlap.shared(Files(folder='a'), Files(folder='b')))
    assert '1 of the 5 images' in caplog.text and "such as 'image 3'" in caplog.text


def test_each_file_of_many_of_one_size_is_read_once(tmp_path, monkeypatch):
    class Files(LabelMaps):
        def image_path(self, index):
            return str(tmp_path / f'{self.changes["first"] + int(index)}')

    for n in range(10):
        (tmp_path / f'{n}').write_bytes(bytes(5000) + bytes([n]))  # Their beginnings are equal, too.
    (tmp_path / '7').write_bytes(bytes(5000) + bytes([2]))
    (tmp_path / '9').unlink()
    read, digest = [], overlap._digest
    monkeypatch.setattr(overlap, '_digest', lambda most, path: read.append((most, path)) or digest(most, path))
    (found,) = overlap.shared(Files(first=0), Files(first=5))
    assert list(found.images) == ['image 2'] and len(read) == len(set(read)) == 18
