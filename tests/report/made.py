"""A run's files, made by hand: the formats are those of the executor, which tests/test_docs.py reports on as well."""

import io
import json
import os

import numpy as np
from PIL import Image

from seg.files import write_json
from seg.run import evaluated_images
from seg.run.evaluated_images import EvaluatedImage
from seg.run.events import Events
from seg.run.metrics_log import MetricsLog
from seg.structures import ImageSummary

NAMES = ['background', 'cat', 'dog']
CONFUSION = np.array([[900, 50, 50], [40, 60, 0], [10, 20, 70]])
STEPS = 300


def scores(confusion=CONFUSION, names=NAMES) -> dict[str, float]:
    """As the metric mean_iou gives them."""
    right, truth, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    ious = right / (truth + predicted - right)
    return {
        'loss': 0.51234567891,
        'loss/softmax_cross_entropy': 0.51234567891,
        'miou': float(ious.mean()),
        'miou_classes': 3,
        'pixel_accuracy': float(right.sum() / truth.sum()),
        'mean_accuracy': float((right / truth).mean()),
        'pixels': int(truth.sum()),
        **{f'iou/{name}': float(iou) for name, iou in zip(names, ious, strict=True)},
    }


def figure(tag, height=32, width=64, value=0, photo=False) -> ImageSummary:
    return ImageSummary(tag, np.full((height, width, 3), value, np.uint8), photo)


def photo(tag, height=32, width=64) -> ImageSummary:
    """Soft colours with grain, stored without loss."""
    random = np.random.default_rng(len(tag))
    soft = Image.fromarray(random.integers(0, 255, (4, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(soft, np.int16) + random.integers(-3, 4, (height, width, 3))
    return ImageSummary(tag, np.clip(pixels, 0, 255).astype(np.uint8), False)


def run(folder, names=NAMES, complete=True, mode='train_and_eval') -> str:
    """A run of 300 steps with three evaluations, the best of them at step 200."""
    folder = str(folder)
    os.makedirs(os.path.join(folder, 'eval'), exist_ok=True)
    write_json(
        os.path.join(folder, 'run.json'),
        {
            'mode': mode,
            'evaluates': mode != 'train',
            'precision': 'bfloat16',
            'strategy': 'MirroredStrategy',
            'replicas': 2,
            'global_batch': 8,
            'train_steps': STEPS,
            'best_metric': 'miou',
            'jit_compile': True,
            'deterministic': False,
            'command': ['seg_main', '--gin_file=gin/deeplab_voc.gin', "--gin_param=DATA_DIR='/data/my voc'"],
            'versions': {
                'seg': '0.1.0',
                'tensorflow': '2.21.0',
                'processor': 'Z80',
                'devices': ['H100', 'H100'],
                'cpu_cores': 2,
                'memory_gib': 23.5,
            },
            'training': {
                'RunConfig.seed': '7',
                'OptimizerStep.ema_decay': '0.99',
                'tasks.semantic.model': '@models.deeplab_v3plus',
                'models.deeplab_v3plus.backbone': '@backbones.resnet18',
                'experiment.optimizer': '@optimizers.adamw',
            },
            'free': {'experiment.eval_data': '@eval/datasets.pets', 'eval/datasets.pets.split': "'val'"},
        },
    )
    write_json(
        os.path.join(folder, 'dataset_info.json'),
        {'name': 'pets/train', 'class_names': list(names), 'colors': [[0, 0, 0], [128, 0, 0], [0, 128, 0]]}
        | {'class_histogram': [[800, 150, 50], [900, 300, 100]]},
    )
    for name, text in {
        'config.gin': "TRAIN_STEPS = 300\nname = '<b>bold</b>'\n",
        'operative_config.gin': '# RunConfig\nRunConfig.seed = 7\n',
        'model_info.txt': '3,399,048 trainable weights\nbackbone: 3,000,000 trainable weights\n',
    }.items():
        with open(os.path.join(folder, name), 'w') as file:
            file.write(text)
    log = MetricsLog(os.path.join(folder, 'metrics.jsonl'))
    random = np.random.default_rng(0)
    for step in range(5, STEPS + 1, 5):
        log.add(
            'train',
            step,
            {
                'loss': 2 / step + 0.1 * random.random(),
                'loss/softmax_cross_entropy': 1 / step,
                'loss/dice': 1 / step,
                'learning_rate': 1e-5 * step,
                'gradient_norm': random.random(),
                'images_per_second': 20.0,
                'data_wait': 0.1,
                'host_memory_mb': 2048.0,
            },
        )
        if step % 100 == 0:
            metrics = scores(names=names)
            metrics |= {'miou': metrics['miou'] + {100: -0.1, 200: 0.01, 300: 0.0}[step]}
            log.add('eval', step, metrics | {'examples': 10, 'seconds': 2.0} | origin('confusion', step))
    write_json(
        os.path.join(folder, 'eval', f'confusion-val-{STEPS}.json'),
        {'class_names': list(names), 'pixels': CONFUSION.tolist()},
    )
    if complete:
        write_json(os.path.join(folder, 'results.json'), results(names))
    return folder


def origin(kind, step) -> dict:
    """The facts in an evaluation's record besides its scores."""
    return {'split': 'val', 'weights': 'ema', 'details': {kind: f'eval/{kind}-val-{step}.json'}}


def results(names=NAMES, step=STEPS) -> dict:
    return {
        'step': step,
        'metrics': scores(names=names),
        'examples': 10,
        'train_seconds': 4321.0,
        'train_images_per_second': 19.5,
        'eval_images_per_second': 41.25,
        'checkpoint': f'ckpt-{step:08}.safetensors',
        'config': 'config.gin',
        **origin('confusion', step),
        'best': {'step': 200, 'miou': scores()['miou'] + 0.01, 'checkpoint': 'best/ckpt-00000200.safetensors'},
    }


def events(folder, step, figures, start=0) -> None:
    writer = Events(os.path.join(str(folder), 'eval'), start)
    writer.figures(step, figures)
    writer.close()


def edit(path, change) -> None:
    """Changes a JSON file's values in place."""
    with open(path) as file:
        values = json.load(file)
    change(values)
    with open(path, 'w') as file:
        json.dump(values, file)


def images(folder, count, size=(60, 90), step=STEPS, headings=('image', 'truth', 'prediction', 'errors')) -> None:
    """All images of an evaluation; the scores rise with their numbers, the first and the last two are drawn large."""
    random = np.random.default_rng(0)
    height, width = size
    soft = np.asarray(
        Image.fromarray(random.integers(0, 255, (6, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC),
        np.int16,
    )
    found = []
    for i in range(count):
        photo = np.clip(soft + random.integers(-12, 13, soft.shape) + i % 40, 0, 255).astype(np.uint8)
        flat = [np.full((height, width, 3), color, np.uint8) for color in ((0, 0, 0), (128, 0, 0), (40, 40, 40))]
        for panel in flat[:2]:
            panel[10 : 20 + i % 30, 15 : 40 + i % 20] = (0, 128, 0)
        flat[2][12 : 20 + i % 30, 15:20] = (255, 128, 0)
        file = io.BytesIO()
        Image.fromarray(np.concatenate([photo, *flat][: len(headings)], 1)).save(
            file, 'JPEG', quality=80, subsampling=0
        )
        chosen = [f'{kind} {n}' for kind, n in (('worst', i + 1), ('best', count - i), ('fixed', i)) if 0 < n < 3]
        score, caption = i / max(count - 1, 1), f'mIoU {i / max(count - 1, 1):.3f}, {i % 7} % of the pixels wrong'
        name = f'street/image_{i:04}'
        found.append(EvaluatedImage(name, score, caption, headings, size, file.getvalue(), chosen))
    evaluated_images.write(os.path.join(str(folder), 'eval', 'images-val.zip'), step, found)
