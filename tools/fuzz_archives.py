"""The format `archive` of tools/fuzz.py: the archives of published data sets, and the files in them."""

from __future__ import annotations

import pathlib
import random

from fuzz_mutations import of_bytes, of_json
from fuzz_seeds import Format, Seed


def archive(folder: pathlib.Path) -> Format:
    from seg.datasets.builders import camvid11, coco2017, prepare, voc2012
    from seg.datasets.builders.archives import Archive
    from seg.errors import UserError
    from tests.datasets.builders import made

    sets = [
        *(voc2012.published(target, augmented=True) for target in ('label_map', 'instances')),
        coco2017.published(),
        camvid11.published(),
    ]
    contents = {name: content for each in sets for name, content in made.archives(each.files).items()}
    made.put(folder, contents)

    def inside(draw: random.Random, content: bytes) -> bytes:
        """Changes one file, and makes a valid archive of all."""
        path = folder / 'opened'
        path.write_bytes(content)
        there = Archive(str(path))
        files = {name: there.read(name) for name in there.names}
        name = draw.choice(there.names)
        files[name] = draw.choice([of_json, of_bytes] if name.endswith('.json') else [of_bytes])(draw, files[name])
        return made.archive('a.zip' if content.startswith(b'PK') else 'a.tar', files)

    def read(path: str) -> None:
        changed = pathlib.Path(path).name
        for each in sets:
            if changed not in {file.name for file in each.files}:
                continue
            content = each.read([Archive(str(folder / file.name)) for file in each.files])
            for examples in content.splits.values():
                for example in examples():
                    prepare.record(example, each.target)

    seeds = [Seed(name, content, (of_bytes, inside, inside)) for name, content in contents.items()]
    return Format(seeds, read, (UserError,))
