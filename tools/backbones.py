"""The models of other libraries: measures them for `--list backbones`, and writes the tables of docs/backbones.md.

python tools/backbones.py --measure         # Builds the first model of each family, a minute each: needs the extra zoo.
python tools/backbones.py --measure NAME …  # Builds these models.
python tools/backbones.py                   # Writes the tables from what was measured, by this and by
                                            # benchmarks/backbones.py.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TABLE = ROOT / 'seg' / 'backbones' / 'bridge' / 'models.json'
PAGE = ROOT / 'docs' / 'backbones.md'
TIMES = ROOT / 'benchmarks' / 'backbones.json'
SIDE = 512
# Of images, in pixels, until one fits the model; None for models of any size.
SIDES = (None, SIDE, 448, 384)


def measure(names: list[str]) -> None:
    """Writes the table. Nothing is initialised or run: variables and images are shapes.

    Args:
      names: of models, in any library; empty for the first model of each family that is not in the table.
    """
    os.environ['KERAS_BACKEND'] = 'jax'
    from seg.backbones.bridge import keras_applications, keras_hub, zeromodels

    models = [('keras_applications', _family(name), name) for name in keras_applications.MODELS]
    models += [('keras_hub', re.match(r'[a-z]+v\d(?=_)|[a-z]+', name)[0], name) for name in keras_hub.MODELS]
    models += [('zeromodels', family, name) for family, each in zeromodels.FAMILIES.items() for name in each.names]
    if unknown := set(names) - {model[2] for model in models}:
        raise SystemExit(f'Unknown models: {", ".join(sorted(unknown))}. seg_main --list backbones shows all.')
    if names:
        chosen = [model for model in models if model[2] in names]
    else:
        known = {(row['library'], row['family']) for row in rows()}
        firsts = {model[:2]: model for model in reversed(models)}
        chosen = [model for family, model in firsts.items() if family not in known][::-1]
    for library, family, name in chosen:
        row = {'library': library, 'family': family, 'name': name, **_measured(library, name)}
        print(row, flush=True)
        stored = {(row['library'], row['name']): row for row in rows()} | {(library, name): row}
        ordered = [stored[library, name] for library, _, name in models if (library, name) in stored]
        lines = ',\n'.join(json.dumps(row) for row in ordered)
        TABLE.write_text(f'[\n{lines}\n]\n', encoding='utf-8')


def _family(name: str) -> str:
    """`efficientnet_v2` of `efficientnet_v2_b0`."""
    return re.sub(r'_(b\d|[sml]|tiny|small|base|large|xlarge)$|(?<!_v)(?<=[a-z])\d+', '', name)


def _measured(library: str, name: str) -> dict:
    import jax
    from keras import StatelessScope

    from seg.errors import UserError
    from seg.layers.norm import NormFactory
    from seg.registry import backbones

    builder = backbones.get(library).builder

    def build(output_stride: int, side: int | None):
        size = {} if side is None else {'image_size': side}
        with StatelessScope():
            return builder(output_stride=output_stride, norm=NormFactory(), name=name, **size)

    reason = None
    for side in SIDES:
        try:
            net = build(32, side)
            break
        except UserError as error:
            reason = error
    else:
        raise reason
    try:
        build(8, side)
        strides = [8, 16, 32]
    except UserError:
        strides = [32]

    def abstract(variables):
        return [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in variables]

    image = jax.ShapeDtypeStruct((1, side or SIDE, side or SIDE, 3), 'float32')
    parameters = sum(variable.size for variable in abstract(net.variables))
    step = jax.jit(lambda *given: net.stateless_call(*given, training=False)[0])
    cost = step.lower(abstract(net.trainable_variables), abstract(net.non_trainable_variables), image).cost_analysis()
    return {
        'parameters': parameters,
        'strides': strides,
        'one_size': side is not None,
        'side': side or SIDE,
        'gflop': round(cost['flops'] / 1e9, 2),
        'c1': 'c1' in net.output,
    }


def page(before: str) -> str:
    """The text of the page: that of before, with the tables anew."""
    for name, made in (('models', models()), ('times', times())):
        begin, end = (
            f'<!-- {text}: {name} -->' for text in ('Made by python tools/backbones.py', 'The end of what is made')
        )
        start, _, rest = before.partition(f'{begin}\n')
        before = f'{start}{begin}\n\n{made}\n\n{end}{rest.partition(end)[2]}'
    return before


def models() -> str:
    """The tables of the models."""
    header = ['Model', 'Family', 'Parameters, M', 'GFLOP', 'Output strides']
    sections = []
    for library in dict.fromkeys(row['library'] for row in rows()):
        table = [header, ['---'] * len(header)]
        for row in rows():
            if row['library'] == library:
                operations = f'{row["gflop"]:.1f}{_at(row)}'
                millions = f'{row["parameters"] / 1e6:.1f}'
                table.append([f'`{row["name"]}`', row['family'], millions, operations, _strides(row)])
        sections.append(f'### `backbones.{library}`\n\n{_lines(table)}')
    return '\n\n'.join(sections)


def times() -> str:
    """The table of DeepLab v3+ beside segmentation_models_pytorch: `ours / peer, ratio`."""
    header = ['Encoder', 'Precision', 'Training, ms', 'ratio', 'Inference, ms', 'ratio', 'Memory, MiB', 'ratio']
    table = [header, ['---'] * len(header)]
    for encoder, by_precision in json.loads(TIMES.read_text(encoding='utf-8')).items():
        for precision, found in by_precision.items():
            cells = []
            for what, scale in (('train', 1000), ('infer', 1000), ('memory', 1)):
                ours, peer = (found[what][side] * scale for side in ('ours', 'peer'))
                cells += [f'{ours:,.0f} / {peer:,.0f}', f'{ours / peer:.2f}']
            table.append([f'`{encoder}`', precision, *cells])
    return _lines(table)


def _lines(table: list[list[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in table)


def _at(row: dict) -> str:
    return '' if row['side'] == SIDE else f' at {row["side"]}'


def _strides(row: dict) -> str:
    return ', '.join(map(str, row['strides'])) + (', images of one size' if row['one_size'] else '')


def rows() -> list[dict]:
    return json.loads(TABLE.read_text(encoding='utf-8')) if TABLE.exists() else []


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--measure', nargs='*', metavar='NAME', help='builds models and measures them')
    if (chosen := parser.parse_args().measure) is not None:
        measure(chosen)
    PAGE.write_text(page(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
