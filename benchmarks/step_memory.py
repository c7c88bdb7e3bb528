"""The memory that the log says before the first step, beside the memory that the training takes.

    python benchmarks/step_memory.py [--engine tensorflow] [--precision float32,bfloat16] [--only GLOB]

Trains each of some models for four steps on procedural scenes, in a process of its own on the CPU, checkpoint included.
The taken memory is the largest resident set of the process. Prints a Markdown table. Ratios of 0.75 to 1.33 are good.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Name: gin file, crop, batch size, other settings.
CASES = {
    'deeplab_demo': ('deeplab_shapes', 128, 8, []),
    'deeplab_demo_large_batch': ('deeplab_shapes', 128, 64, []),
    'deeplab_resnet50': ('deeplab_shapes', 257, 4, ['BACKBONE=@backbones.resnet50']),
    'deeplab_resnet50_large': ('deeplab_shapes', 385, 8, ['BACKBONE=@backbones.resnet50']),
    'deeplab_lite0': ('deeplab_shapes', 257, 8, ['BACKBONE=@backbones.efficientnet_lite0']),
    'mask_rcnn_demo': ('maskrcnn_shapes', 128, 8, []),
    'mask_rcnn_resnet50': ('maskrcnn_shapes', 320, 2, ['BACKBONE=@backbones.resnet50']),
    'mask_rcnn_resnet50_large': ('maskrcnn_shapes', 512, 4, ['BACKBONE=@backbones.resnet50']),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--engine', default='tensorflow')
    parser.add_argument('--precision', default='float32', help='precisions, separated by commas')
    parser.add_argument('--only', default='*', help='names of the cases')
    chosen = parser.parse_args()
    print('| case | precision | before, GiB | taken, GiB | ratio |\n| --- | --- | --- | --- | --- |')
    for name in fnmatch.filter(CASES, chosen.only):
        for precision in chosen.precision.split(','):
            said, taken = measured(*CASES[name], precision, chosen.engine)
            print(f'| {name} | {precision} | {said:.1f} | {taken:.1f} | {said / taken:.2f} |', flush=True)


def measured(
    gin: str, crop: int, batch_size: int, settings: list[str], precision: str, engine: str
) -> tuple[float, float]:
    """Returns the GiB that a training says, and those that its process takes at most."""
    settings = [*settings, f'CROP=({crop}, {crop})', f'BATCH_SIZE={batch_size}', 'TRAIN_STEPS=4']
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'seg.seg_main', f'--gin_file={ROOT}/gin/{gin}.gin', f'--model_dir={folder}']
        command += ['--mode=train', f'--precision={precision}', f'--engine={engine}']
        command += [f'--gin_param={setting}' for setting in settings]
        environment = os.environ | {'PYTHONPATH': str(ROOT)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        log = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
    found = re.findall(r'take about ([\d.]+)', log)
    if status or not found:
        sys.exit(log)
    return float(found[0]), usage.ru_maxrss / 2**20


if __name__ == '__main__':
    main()
