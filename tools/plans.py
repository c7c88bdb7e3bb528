"""Plans the recipes for VOC and COCO on many kinds of hardware: the tables of plans in docs/results.md.

    python tools/plans.py [--only=deeplab_voc,maskrcnn_coco]

Steps for TPUs are compiled if libtpu is installed (`pip install -e '.[tpu]'`), one by one, 2 to 15 minutes of a core
each; what has been compiled is read from the cache (docs/scale.md).
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import platform
import re
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seg import files, modes  # noqa: E402
from seg.planner import table  # noqa: E402

PAGE = ROOT / 'docs' / 'results.md'
# Hardware of each recipe; a fragment of gin/hardware is given where it is named.
VOC = ('v2-8', 'v3-8', 'v4-8', 'v5e-8', 'v5p-8', 'v6e-8', 'v100-8', 'a100-8', 'h100-1', 'h100-8')
COCO = tuple(sorted(path.stem for path in (ROOT / 'gin' / 'hardware').glob('*.gin')))
RECIPES = {'deeplab_voc': {name: () for name in VOC}}
RECIPES['maskrcnn_coco'] = {name: (f'gin/hardware/{name}.gin',) for name in COCO} | {'v4-16': (), 'a100-8': ()}


def markers(name: str) -> tuple[str, str]:
    return f'<!-- Made by python tools/plans.py: {name} -->', f'<!-- The end of the plan: {name} -->'


def planned(name: str) -> list[dict[str, Any]]:
    """The contents of plan.json for a recipe, one for each combination of gin files."""
    by_files: dict[tuple[str, ...], list[str]] = {}
    for hardware, fragments in RECIPES[name].items():
        by_files.setdefault(fragments, []).append(hardware)
    return [
        modes.run([f'gin/{name}.gin', *fragments], mode='plan', hardware=hardware)
        for fragments, hardware in by_files.items()
    ]


def text(name: str, plans: list[dict[str, Any]], seconds: float) -> str:
    """The section of a recipe."""
    head = table.cells(plans[0])[0]
    rows = []
    for plan in plans:
        for line in table.cells(plan)[1:]:
            rows.append((line[0], f'{plan["train_steps"]:,}', *line[1:]))
    rows.sort(key=lambda line: list(RECIPES[name]).index(line[0]))
    lines = [(head[0], 'steps', *head[1:]), ['---'] * (len(head) + 1), *rows]
    begin, end = markers(name)
    made = f'{datetime.date.today()}, Python {platform.python_version()}'
    return '\n'.join(
        [
            begin,
            '',
            *(f'| {" | ".join(line)} |' for line in lines),
            '',
            f'Prices in USD of {plans[0]["prices"]["date"]}. Made in {seconds / 60:.0f} minutes ({made}).',
            '',
            end,
        ]
    )


def main(names: list[str]) -> None:
    for name in names:
        start = time.perf_counter()
        plans = planned(name)
        section = text(name, plans, time.perf_counter() - start)
        begin, end = markers(name)
        page = PAGE.read_text(encoding='utf-8')
        changed, count = re.subn(f'{begin}.*?{end}', lambda _, made=section: made, page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f'{PAGE}: expected one {begin} with {end} after it; found {count}.')
        files.write_text(str(PAGE), changed)
        print(section)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default=','.join(RECIPES), help='names of recipes, separated by commas')
    main(parser.parse_args().only.split(','))
