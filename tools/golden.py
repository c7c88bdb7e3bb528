"""Rewrites the golden files in tests/golden/: the settings and variables of each file in gin/, and losses of trainings.

    python tools/golden.py [--only NAME,NAME]

`<name>.txt`, for each gin/<name>.gin: every setting in use, with defaults and with macros replaced by their values; the
bindings for other modes; and each variable with its shape, its initialiser, whether it is trained, its decay and the
factor on its learning rate. Data sets that are not procedural are replaced by a tiny one.

`losses.json`: losses, counts, gradient norms, metrics and norms of the weights of short trainings in float64.

After a refactoring `git diff tests/golden` must be empty; after a change that should alter results, it shows the
effect. tests/test_golden.py and tests/test_golden_losses.py make the comparison. NAME is a gin file's or a training's.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import difflib
import inspect
import itertools
import json
import math
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import seg  # noqa: E402, F401  # isort: skip  Before TensorFlow: turns on oneDNN.
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from seg import config, engine, modes  # noqa: E402
from seg.engine.precision import set_precision  # noqa: E402
from seg.engine.tensorflow import ordered_sums  # noqa: E402
from seg.optimizers.decay import decays  # noqa: E402
from tests.datasets.records import pets  # noqa: E402
from tests.executor import runs  # noqa: E402

FOLDER = ROOT / 'tests' / 'golden'
LOSSES = FOLDER / 'losses.json'
GIN_FILES = sorted(ROOT.glob('gin/*.gin'))
ADVICE = 'If this change is intended: python tools/golden.py rewrites tests/golden/; commit what it changes.'

# Trainings of a few steps, which together pass through all parts of the optimizer step.
_SMALL = (
    'TRAIN_STEPS=4',
    'BATCH_SIZE=4',
    'CROP=(64, 64)',
    'backbones.resnet18.width=0.25',
    'datasets.shapes.num_examples=6',
    'datasets.shapes.min_object_size=12',
    'RunConfig.iterations_per_loop=1',
    'RunConfig.num_pictures=0',
    'OptimizerStep.ema_decay=0.9',
)
_SGD = (
    'experiment.optimizer=@optimizers.sgd',
    'optimizers.sgd.schedule=@schedules.poly',
    'optimizers.sgd.momentum=0.9',
    'schedules.poly.base_lr=0.02',
    'schedules.poly.warmup_steps=2',
    'OptimizerStep.l2=1e-3',
    'OptimizerStep.clip_norm=1.0',
    "OptimizerStep.part_rates={'backbone': 0.5}",
)
_INSTANCES = (
    'decoders.fpn.channels=16',
    'heads.rpn.channels=16',
    'heads.rpn.train_proposals=40',
    'heads.rpn.eval_proposals=30',
    'heads.box.fc=(16, 16)',
    'heads.mask.convs=(8,)',
    'heads.mask.deconv=8',
)
TRAININGS = {
    'deeplab': (
        'gin/deeplab_shapes.gin',
        *_SMALL,
        *_SGD,
        'decoders.deeplab_v3plus.aspp_channels=16',
        'decoders.deeplab_v3plus.decoder_channels=16',
        'decoders.deeplab_v3plus.low_level_channels=8',
        'models.deeplab_v3plus.aux_head=@heads.fcn',
        'heads.fcn.channels=16',
    ),
    'mask_rcnn': ('gin/maskrcnn_shapes.gin', *_SMALL, *_INSTANCES),
    'cascade_rcnn': (
        'gin/maskrcnn_shapes.gin',
        *_SMALL,
        *_INSTANCES,
        *_SGD,
        *runs.CASCADE,
        "models.cascade_rcnn.norm='frozen'",
        'models.cascade_rcnn.frozen_stages=1',
    ),
}


def write_data(folder: pathlib.Path) -> None:
    """Writes two images in the layouts that the files in gin/ read, for the splits that they name."""
    voc = folder / 'VOC2012'
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (voc / name).mkdir(parents=True)
    (folder / 'annotations').mkdir()
    splits = ('train', 'val', 'train_aug', 'train2017', 'val2017')
    for split in splits:
        (folder / split).mkdir()
        (voc / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('one\ntwo\n')
    random, images = np.random.default_rng(0), []
    for number, (stem, (height, width)) in enumerate({'one': (60, 80), 'two': (72, 50)}.items()):
        image = Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8))
        label = Image.fromarray(random.choice(np.uint8([0, 1, 20, 255]), (height, width)))
        label.save(voc / 'SegmentationClass' / f'{stem}.png')
        for place in (voc / 'JPEGImages', *(folder / split for split in splits)):
            image.save(place / f'{stem}.jpg')
        for split in ('train', 'val'):  # Two folders of other names, for `datasets.folders`.
            for name, each in (('images', image), ('labels', label.point(lambda value: value % 18))):
                (folder / name / split).mkdir(parents=True, exist_ok=True)
                each.save(folder / name / split / f'{stem}.png')
        images.append({'id': number, 'file_name': f'{stem}.jpg', 'height': height, 'width': width})
    triangle = {'id': 0, 'image_id': 0, 'category_id': 7, 'segmentation': [[5, 5, 30, 5, 5, 40]], 'iscrowd': 0}
    names = [{'id': 3, 'name': 'cell'}, {'id': 7, 'name': 'wedge'}]
    text = json.dumps({'images': images, 'annotations': [triangle], 'categories': names})
    for split in splits:
        (folder / 'annotations' / f'instances_{split}.json').write_text(text)
    pets.write_as_oxford(folder)


def text(gin_file: pathlib.Path, data: pathlib.Path) -> str:
    """Returns the golden text of a gin file.

    Args:
      gin_file: one of `GIN_FILES`.
      data: the folder of `write_data`; the text does not contain its path.
    """
    asks = 'data_dir = %DATA_DIR' in _with_includes(gin_file)
    set_precision('float32')
    with contextlib.chdir(data.parent), zero_weights() as initialisers:
        params = [f'DATA_DIR={data.name!r}'] if asks else []
        one = engine.set_up('one', 'float32', 'off')
        made = modes.build([str(gin_file)], model_dir='run', gin_params=params, engine=one)
        if made.optimizer.weight_decay:
            made.executor.build_trainer()  # Tells the optimizer which variables do not decay.
    used, bound = config.operative_values(), config.bound_values()
    idle = {key: value for key, value in bound.items() if key not in used}
    step = config.injected('OptimizerStep')()
    sections = [
        [f'# Made by tools/golden.py of {gin_file.relative_to(ROOT)}.'],
        ['# Settings in use.', *(f'{key} = {value}' for key, value in sorted(used.items()))],
        ['# Bound for other modes.', *(f'{key} = {value}' for key, value in sorted(idle.items()))],
    ]
    title = '# Variables: name, shape, initialiser, trained or not, decay, factor on the learning rate.'
    variables = {
        f'{part}/{v.path}': _line(v, step, part, made.optimizer, owner, initialiser)
        for part, layer in made.task.checkpoint_items.items()
        for v in layer.variables
        for owner, initialiser in [initialisers[id(v)]]
    }
    sections.append([title, *(f'{name} {line}' for name, line in sorted(variables.items()))])
    return '\n\n'.join('\n'.join(section) for section in sections if len(section) > 1 or section is sections[0]) + '\n'


def _with_includes(path: pathlib.Path) -> str:
    """The text of a gin file and of the files that it includes."""
    own = path.read_text(encoding='utf-8')
    included = [line.split("'")[1] for line in own.splitlines() if line.startswith("include '")]
    return own + ''.join(_with_includes(ROOT / name) for name in included)


@contextlib.contextmanager
def zero_weights() -> Iterator[dict[int, tuple[Any, Any]]]:
    """Context in which weights are zeros, which saves time; yields layers and initialisers by the variables' ids."""
    found, original = {}, keras.layers.Layer.add_weight
    signature = inspect.signature(original)

    def add_weight(self, *args, **settings):
        given = signature.bind(self, *args, **settings)
        initialiser = given.arguments.get('initializer')
        given.arguments['initializer'] = 'zeros'
        variable = original(*given.args, **given.kwargs)
        default = 'glorot_uniform' if 'float' in variable.dtype else 'zeros'
        found[id(variable)] = self, keras.initializers.get(default if initialiser is None else initialiser)
        return variable

    keras.layers.Layer.add_weight = add_weight
    try:
        yield found
    finally:
        keras.layers.Layer.add_weight = original


def _line(variable: Any, step: Any, part: str, optimizer: Any, owner: Any, initialiser: Any) -> str:
    """The description of a variable after its name."""
    facts = [str(tuple(variable.shape)), _spelled(initialiser)]
    if variable.trainable:
        decay = [f'l2 {step.l2}'] if step.l2 and decays(variable) else []
        if optimizer.weight_decay and optimizer._use_weight_decay(variable):
            decay.append(f'decoupled {optimizer.weight_decay}')
        facts += ['trained', ' + '.join(decay) or 'no decay', f'rate {float(step.part_rates.get(part, 1))}']
    else:
        # Moving statistics are never trained, and may be constant as well.
        moves = hasattr(owner, 'is_stored') and not owner.is_stored(training=True)
        facts.append('moving statistics' if moves else 'frozen')
    return ', '.join(facts)


def _spelled(initialiser: Any) -> str:
    settings = {k: v for k, v in initialiser.get_config().items() if k != 'seed' and v is not None}
    return f'{type(initialiser).__name__}({", ".join(f"{name}={value!r}" for name, value in settings.items())})'


def train(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Trains one of `TRAININGS` in float64.

    Returns:
      `steps`, the values of each in metrics.jsonl; `metrics` of the last evaluation; `norms` of the last checkpoint's
      tensors, those of each part of the model and of the optimizer together.
    """
    gin_file, *params = TRAININGS[name]
    one = engine.set_up('one', 'float32', 'off')
    set_precision('float64')
    ordered_sums.use()  # Otherwise a sum's last bit, and with it a choice of proposals, may depend on threads.
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})  # It takes longer than the steps.
    try:
        results = modes.run(
            [str(ROOT / gin_file)],
            model_dir=str(folder),
            gin_params=params,
            engine=dataclasses.replace(one, precision='float64'),
        )
    finally:
        set_precision('float32')
        tf.config.optimizer.set_experimental_options({'disable_meta_optimizer': False, **before})
    lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    steps = [
        {key: value for key, value in line.items() if re.match('loss|counts/|gradient_norm|learning_rate', key)}
        for line in lines
        if 'learning_rate' in line
    ]
    squares = collections.Counter()
    for key, tensor in load_file(results['checkpoint']).items():
        if np.issubdtype(tensor.dtype, np.floating):
            group = 'optimizer' if key.startswith('optimizer/') else '/'.join(key.split('/')[:2])
            squares[group] += float(np.sum(np.square(tensor)))
    norms = {key: math.sqrt(value) for key, value in sorted(squares.items())}
    return {'steps': steps, 'metrics': results['metrics'], 'norms': norms}


def flat(value: Any, key: str = '') -> dict[str, float | None]:
    """Numbers of nested records by their place, such as `steps/0/loss`."""
    if not isinstance(value, Mapping | list):
        return {key: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {k: v for name, item in items for k, v in flat(item, f'{key}/{name}' if key else str(name)).items()}


def changes(golden: Any, now: Any, tolerance: float = 1e-6) -> list[str]:
    """Lines on the values of two records of a training whose relative difference exceeds the tolerance."""
    old, new = flat(golden), flat(now)
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key, '(absent)'), new.get(key, '(absent)')
        numbers = all(isinstance(value, int | float) for value in (before, after))
        if before != after and not (numbers and math.isclose(before, after, rel_tol=tolerance, abs_tol=1e-12)):
            lines.append(f'{key}: {before} -> {after}')
    return lines


def difference(path: pathlib.Path, new: str) -> str:
    """A diff of a golden text and the new text; '' if they are equal."""
    old = path.read_text(encoding='utf-8') if path.exists() else ''
    name = str(path.relative_to(ROOT))
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, f'{name} (now)', n=0, lineterm='')
    return '\n'.join(lines)


def main(only: Iterable[str]) -> int:
    """Rewrites golden files, and prints which ones have changed."""
    known = [*(path.stem for path in GIN_FILES), *TRAININGS]
    if unknown := sorted(set(only) - set(known)):
        print(f'golden.py: --only={unknown[0]}: expected some of {", ".join(known)}.', file=sys.stderr)
        return 2
    wanted = set(only or known)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_data(folder / 'data')
        for path in (path for path in GIN_FILES if path.stem in wanted):
            _rewrite(FOLDER / f'{path.stem}.txt', text(path, folder / 'data'))
        kept = json.loads(LOSSES.read_text()) if LOSSES.exists() else {}
        for name in (name for name in TRAININGS if name in wanted):
            now = train(name, folder / name)
            if changes(kept.get(name, {}), now):  # Rounding differs between machines, and is not a change.
                kept[name] = now
        _rewrite(LOSSES, json.dumps({name: kept[name] for name in TRAININGS if name in kept}, indent=1) + '\n')
    if not only:
        names = {path.stem for path in GIN_FILES}
        for path in itertools.filterfalse(lambda path: path.stem in names, FOLDER.glob('*.txt')):
            path.unlink()
            print(f'{path.relative_to(ROOT)}: removed, because there is no such gin file')
    return 0


def _rewrite(path: pathlib.Path, new: str) -> None:
    changed = bool(difference(path, new))
    if changed:
        path.write_text(new, encoding='utf-8')
    print(f'{path.relative_to(ROOT)}: {"rewritten" if changed else "as it was"}', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', help='names, separated by commas')
    sys.exit(main(list(filter(None, parser.parse_args().only.split(',')))))
