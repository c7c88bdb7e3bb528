"""Which runs have measured a configuration."""

import json

import pytest

from seg.planner import records, tables
from seg.planner.estimate import Facts
from seg.run.folder import RunFolder

FACTS = Facts(batch=8, steps=100, rate=0.1, exchanged=1.0, input_seconds=0.0)
CPU, CONFIG = ('Z80', 2), 'TRAIN_STEPS = 100\n'


@pytest.fixture(name='folder')
def _folder(tmp_path):
    folder = RunFolder(str(tmp_path))
    versions = {'devices': ['NVIDIA H100 80GB HBM3'], 'processor': 'Z80', 'cpu_cores': 2}
    with open(folder.run, 'w') as file:
        json.dump({'replicas': 1, 'global_batch': 8, 'versions': versions}, file)
    with open(folder.results, 'w') as file:
        json.dump({'step': 100, 'metrics': {}, 'train_images_per_second': 40.0}, file)
    with open(folder.config, 'w') as file:
        file.write(CONFIG)
    return folder


def recorded(folder, name='h100-1', facts=FACTS, config=CONFIG, processor=CPU):
    return records.recorded(folder, tables.hardware(name), facts, config, processor)


def on(folder, devices, replicas=1):
    with open(folder.run) as file:
        about = json.load(file)
    about['versions']['devices'], about['replicas'] = devices, replicas
    with open(folder.run, 'w') as file:
        json.dump(about, file)


def test_the_same_configuration(folder):
    assert recorded(folder).step_seconds == pytest.approx(8 / 40)


def test_another_configuration(folder):
    assert recorded(folder, config='TRAIN_STEPS = 200\n') is None
    assert recorded(folder, facts=FACTS._replace(batch=16)) is None
    for name in ('h100-8', 'a100-1', 'v3-8', 'cpu'):
        assert recorded(folder, name) is None


def test_other_hardware(folder):
    on(folder, ['TPU v5 lite'] * 8, 8)
    assert recorded(folder, 'v5e-8') and not recorded(folder, 'v5p-16')
    on(folder, ['CPU:0'])
    assert recorded(folder, 'cpu') and not recorded(folder, 'cpu', processor=('Z80', 4))


def test_damaged_files(folder):
    for path in (folder.results, folder.run, folder.config):
        with open(path, 'wb') as file:
            file.write(b'\xff')
        assert recorded(folder) is None
