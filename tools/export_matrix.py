"""Exports runs in every format and quantization, and prints the figures of the checks as a table for `docs/export.md`.

    python tools/export_matrix.py runs/deeplab_r50 runs/maskrcnn_r50 --quantize=none,float16,int8
    python tools/export_matrix.py runs/memorised/overfit --flag=--canvas=256,256 --flag="--gin_param=EVAL_SPLIT='train'"

Each cell is a call of `seg_main --mode=export` of its own, so that a crash of a converter is a cell, too. Finished
cells are kept in matrix.json in the output folder, and the same command continues: remove the file to start over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORMATS = 'saved_model,onnx,tflite,openvino'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', help='directories of runs')
    parser.add_argument('--format', default=FORMATS, help='formats, separated by commas')
    parser.add_argument('--quantize', default='none', help='quantizations, separated by commas')
    parser.add_argument('--images', type=int, default=16, help='images of the check')
    parser.add_argument('--flag', action='append', default=[], help='a further flag of the export; may be repeated')
    parser.add_argument('--output', default='runs/export_matrix', help='folder of the files and of matrix.json')
    chosen = parser.parse_args()
    os.makedirs(chosen.output, exist_ok=True)
    path = os.path.join(chosen.output, 'matrix.json')
    cells = {}
    if os.path.exists(path):
        with open(path, encoding='utf-8') as file:
            cells = json.load(file)
    for run in chosen.runs:
        for name in chosen.format.split(','):
            for quantize in chosen.quantize.split(','):
                key = f'{named(run)} {name} {quantize}'
                if key not in cells:
                    print(f'{key} …', file=sys.stderr, flush=True)
                    cells[key] = cell(run, name, quantize, chosen)
                    with open(f'{path}.new', 'w', encoding='utf-8') as file:
                        json.dump(cells, file, indent=2)
                    os.replace(f'{path}.new', path)
    print(table(cells))


def named(run: str) -> str:
    """The name of a run: its directory without `overfit`."""
    return os.path.basename(os.path.normpath(run).removesuffix(f'{os.sep}overfit'))


def cell(run: str, name: str, quantize: str, chosen: argparse.Namespace) -> dict:
    """The figures of one file, or `reason` if there is none."""
    output = os.path.join(chosen.output, named(run), f'{name}-{quantize}')
    command = [sys.executable, '-m', 'seg.seg_main', '--mode=export', f'--model_dir={run}', f'--output={output}']
    command += [f'--format={name}', f'--quantize={quantize}', f'--images={chosen.images}', '--strategy=one']
    command += chosen.flag
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([ROOT, os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        results = json.loads(done.stdout)
        (figures,) = results['files'].values()
        return figures | {'written': results['written']}
    except ValueError:  # A refusal or a crash prints no results.
        lines = done.stderr.strip().splitlines() or ['']
        return {'reason': lines[-1].removeprefix('seg_main: ') if done.returncode > 0 else f'signal {-done.returncode}'}


def table(cells: dict[str, dict]) -> str:
    """The cells as Markdown."""
    lines = ['| run | format | quantize | differing | score | MB | ms |', '| --- | --- | --- | --- | --- | --- | --- |']
    for key, found in cells.items():
        start = f'| {" | ".join(key.split())} |'
        if 'reason' in found:
            lines.append(f'{start} {found["reason"]} | | | |')
            continue
        refused = '' if found['written'] else ' (refused)'
        lines.append(
            f'{start} {found["differing"]:.3%}{refused} '
            f'| {found["score"]} {found["score_before"]:.4f} -> {found["score_after"]:.4f} '
            f'| {found["bytes"] / 1e6:.2f} | {found["milliseconds_before"]:.0f} -> {found["milliseconds_after"]:.0f} |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
