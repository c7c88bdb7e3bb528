"""Compares `--mode=plan --hardware=cpu` with trainings: seconds of a step and peak of the memory.

    python benchmarks/plan.py [--data=camvid=/data/camvid,nuclei=/data/nuclei,voc=/data/VOCdevkit] [--only=NAME,NAME]

Each recipe is planned, then trained for some steps by the same settings in a process of its own, on the same machine,
which should have no other work. The trainings' seconds are those of all loops but the first; their memory is the peak
of the whole process. Recipes whose data are not given are left out. The plan measures a few steps without executor,
checkpoints and figures; the difference is what these take.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seg import files  # noqa: E402
from seg.run.folder import RunFolder  # noqa: E402
from seg.run.metrics_log import MetricsLog  # noqa: E402

# Gin file, name of its data (empty: procedural), and steps of the training.
RECIPES = {
    'deeplab_shapes': ('', 120),
    'maskrcnn_shapes': ('', 60),
    'deeplab_camvid': ('camvid', 40),
    'maskrcnn_nuclei': ('nuclei', 40),
    'deeplab_voc': ('voc', 12),
}
_LOOPS = 6


def command(name: str, data: str, *more: str) -> list[str]:
    given = [f"--gin_param=DATA_DIR='{data}'"] if data else []
    return [sys.executable, '-m', 'seg.seg_main', f'--gin_file={ROOT / "gin" / f"{name}.gin"}', *given, *more]


def planned(name: str, data: str, folder: str) -> tuple[float, float]:
    """Seconds of a step, and GiB."""
    path = os.path.join(folder, 'plan.json')
    asked = command(name, data, '--mode=plan', '--hardware=cpu', f'--output={path}')
    subprocess.run(asked, check=True, cwd=ROOT, capture_output=True)
    (row,) = files.read_object(path, '')['rows']
    return row['step_seconds'], row['memory_gib']


def measured(name: str, data: str, folder: str) -> tuple[float, float]:
    """Seconds of a step of a training, and GiB."""
    steps, run = RECIPES[name][1], RunFolder(os.path.join(folder, 'run'))
    loop = steps // _LOOPS
    params = (f'TRAIN_STEPS={steps}', f'RunConfig.iterations_per_loop={loop}', 'RunConfig.num_pictures=0')
    asked = command(name, data, '--mode=train', f'--model_dir={run.path}', *(f'--gin_param={each}' for each in params))
    with open(os.path.join(folder, 'log'), 'wb') as log:
        process = subprocess.Popen(asked, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(pathlib.Path(folder, 'log').read_text(encoding='utf-8')[-3000:])
    batch = files.read_object(run.run, '')['global_batch']
    rates = [line['images_per_second'] for line in MetricsLog(run.metrics).read().by_step('train')[1:]]
    return statistics.mean(batch / rate for rate in rates), usage.ru_maxrss / 2**20


def main(given: argparse.Namespace) -> None:
    folders = dict(each.split('=', 1) for each in given.data.split(',') if each)
    print('| recipe | s/step planned | trained | ratio | GiB planned | trained | ratio |')
    print('| --- | --- | --- | --- | --- | --- | --- |', flush=True)
    for name in given.only.split(',') if given.only else RECIPES:
        data = RECIPES[name][0]
        if data and data not in folders:
            continue
        with tempfile.TemporaryDirectory() as folder:
            plan, run = planned(name, folders.get(data, ''), folder), measured(name, folders.get(data, ''), folder)
        cells = [f'{a:.3g} | {b:.3g} | {a / b:.2f}' for a, b in zip(plan, run, strict=True)]
        print(f'| {name} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='', help='NAME=FOLDER, separated by commas; names: camvid, nuclei, voc')
    parser.add_argument('--only', default='', help='names of recipes, separated by commas')
    main(parser.parse_args())
