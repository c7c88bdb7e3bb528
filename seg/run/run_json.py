"""`run.json`: the mode, the hardware, versions and settings of a run. A training writes it when it starts.

`training` and `free` hold the settings as strings by name: those that must not change when the run is resumed, and
those that may. `train_steps_changes` lists the changes of the run's length, see `seg/run/length.py`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from seg import files
from seg.errors import UserError, shown
from seg.run.folder import RunFolder
from seg.run.values import mapping, string, strings, whole

_REMEDY = 'Remove the file; the same training command writes it again when it starts.'
_OWN = (
    *('mode', 'evaluates', 'global_batch', 'train_steps', 'best_metric', 'higher_is_better', 'command', 'versions'),
    *('train_steps_changes', 'init_files', 'training', 'free'),
)


def write(
    folder: RunFolder,
    *,
    mode: str,
    evaluates: bool,
    hardware: Mapping[str, Any],
    batch_size: int,
    train_steps: int,
    train_steps_changes: Sequence[Mapping[str, Any]],
    init_files: Mapping[str, str],
    best_metric: str,
    higher_is_better: bool,
    command: Sequence[str],
    versions: Mapping[str, Any],
    training: Mapping[str, str],
    free: Mapping[str, str],
) -> None:
    """Writes the file.

    Args:
      folder: folder of the run.
      mode: mode of the run.
      evaluates: whether the run evaluates, and so writes `results.json` at its end.
      hardware: the engine's description of itself.
      batch_size: global.
      train_steps: steps of the whole training.
      train_steps_changes: changes of that number when the run was continued.
      init_files: checksums of the files that the initial weights came from, by name.
      best_metric: metric that selects the best checkpoint.
      higher_is_better: whether its highest value selects it, or the lowest.
      command: the command line that this process runs; empty for none.
      versions: versions of libraries and the machine.
      training: settings that must not change.
      free: settings that may.
    """
    files.write_json(
        folder.run,
        {
            'mode': mode,
            'evaluates': evaluates,
            **hardware,
            'global_batch': batch_size,
            'train_steps': train_steps,
            'train_steps_changes': list(train_steps_changes),
            'init_files': dict(init_files),
            'best_metric': best_metric,
            'higher_is_better': higher_is_better,
            'command': list(command),
            'versions': dict(versions),
            'training': dict(training),
            'free': dict(free),
        },
    )


def read(folder: RunFolder) -> dict[str, Any]:
    """Reads the file, whose `training` and `free` are strings by name; empty if there is none.

    Raises:
      UserError: if it is damaged.
    """
    if not os.path.exists(folder.run):
        return {}
    record = files.read_object(folder.run, _REMEDY)
    for key in ('training', 'free'):
        values = record.get(key, {})
        if not isinstance(values, dict) or len(strings(values)) < len(values):
            raise UserError(f'{folder.run!r}: {key} is {shown(values)}, expected an object of strings. {_REMEDY}')
    return record


@dataclasses.dataclass(frozen=True)
class About:
    """The content of `run.json`. A value of the wrong type counts as missing.

    Attributes:
      known: whether there is a file with any content.
      mode: empty if unknown.
      evaluates: None if unknown, as in older runs.
      train_steps: None if unknown.
      batch_size: global; None if unknown.
      best_metric: metric that selects the best checkpoint; the default of RunConfig if unknown.
      higher_is_better: whether a higher value of this metric is better.
      command: words of the command line.
      versions: versions of libraries and the machine.
      settings: strings by name.
      hardware: the rest of the file.
    """

    known: bool = False
    mode: str = ''
    evaluates: bool | None = None
    train_steps: int | None = None
    batch_size: int | None = None
    best_metric: str = 'miou'
    higher_is_better: bool = True
    command: tuple[str, ...] = ()
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hardware: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder: RunFolder) -> About:
        """Reads the file.

        Raises:
          UserError: if it holds no JSON object.
        """
        if not os.path.exists(folder.run):
            return cls()
        record = files.read_object(folder.run, _REMEDY)
        command = record.get('command')
        return cls(
            known=bool(record),
            mode=string(record.get('mode')),
            evaluates=evaluates if isinstance(evaluates := record.get('evaluates'), bool) else None,
            train_steps=whole(record.get('train_steps')),
            batch_size=whole(record.get('global_batch')),
            best_metric=string(record.get('best_metric')) or cls.best_metric,
            higher_is_better=record.get('higher_is_better') is not False,
            command=tuple(map(str, command)) if isinstance(command, list) else (),
            versions=mapping(record.get('versions')),
            settings=strings(record.get('training')) | strings(record.get('free')),
            hardware={key: value for key, value in record.items() if key not in _OWN},
        )
