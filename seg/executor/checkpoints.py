"""The checkpoints of a run: `ckpt-<step>.safetensors`, the newest few, and the best one under `best/`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from seg import files
from seg.errors import UserError, shown
from seg.run.folder import RunFolder
from seg.weights import tensor_file


class Checkpoint(NamedTuple):
    """A checkpoint read from disk: `tensors` by name, and the `metadata` given to `save`."""

    path: str
    step: int
    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any]


class Checkpoints:
    """Writes, finds and prunes the checkpoints of one run."""

    def __init__(self, folder: RunFolder, keep_max: int):
        self._folder = folder
        self._keep_max = keep_max

    def path(self, step: int) -> str:
        return self._folder.checkpoint(step)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first, without those that were set aside as damaged."""
        return self._folder.checkpoint_steps()

    def save(self, step: int, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
        """Writes a checkpoint atomically, then removes the oldest beyond `keep_max`. Returns its path."""
        tensor_file.write(self.path(step), tensors, {**metadata, 'step': step})
        self._prune()
        return self.path(step)

    def clear_up(self) -> None:
        """Removes the remains of a killed save: temporary files, and checkpoints beyond `keep_max`."""
        for folder in (self._folder.path, self._folder.best):
            files.sweep(folder)
        self._prune()

    def _prune(self) -> None:
        for old in self.steps()[: -self._keep_max]:
            with files.writing(self.path(old)):
                os.remove(self.path(old))

    def keep_best(self, step: int) -> str:
        """Makes the checkpoint of `step` the one under `best/`. Returns its path there."""
        source, target = self.path(step), self._folder.best_checkpoint(step)
        with files.writing(self._folder.best):
            os.makedirs(self._folder.best, exist_ok=True)
        # Renaming one name of a file to another name of the same file does nothing and would leave the temporary one.
        if not (os.path.exists(target) and os.path.samefile(source, target)):
            with files.replacing(target) as temporary:
                _link_or_copy(source, temporary)
        for other in self._folder.best_steps():
            if other != step:
                os.remove(self._folder.best_checkpoint(other))
        return target

    def best_step(self) -> int | None:
        """The step of the checkpoint under `best/`, None if there is none."""
        return max(self._folder.best_steps(), default=None)

    def best_path(self) -> str | None:
        """The checkpoint under `best/`, None if there is none."""
        step = self.best_step()
        return None if step is None else self._folder.best_checkpoint(step)

    def latest(self, set_aside: bool = True) -> Checkpoint | None:
        """Reads the newest undamaged checkpoint; None if there is no checkpoint.

        Args:
          set_aside: whether damaged checkpoints are renamed. Only for the process that trains here: for another one, an
            unreadable file may just have been pruned.

        Raises:
          UserError: if all checkpoints are damaged, including those set aside earlier, or if one cannot be opened.
        """
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                return self.read(path)
            except tensor_file.DamagedFileError as error:
                logging.warning('%s Falling back to the checkpoint before it.', error)
                if set_aside:
                    aside = self._folder.damaged(path)
                    with files.writing(aside):
                        os.replace(path, aside)
                    logging.warning('It stays as %s.', aside)
        aside = self._folder.damaged_checkpoints()
        if damaged := len(aside) + len(self.steps()):
            raise UserError(
                f'{self._folder.path}: none of its {damaged} checkpoints can be read'
                + ('; they stay there with the ending .damaged' if aside else '')
                + '. Start over with --fresh, or use another --model_dir.'
            )
        return None

    def find(self, which: str) -> Checkpoint:
        """Reads `latest`, `best`, or the checkpoint file at a path.

        Raises:
          UserError: if there is none.
        """
        if which == 'latest':
            found = self.latest(set_aside=False)
            if found is None:
                raise UserError(f'{self._folder.path} holds no checkpoint: train first, or check --model_dir.')
            return found
        if which == 'best':
            path = self.best_path()
            if path is None:
                raise UserError(f'{self._folder.best} holds no checkpoint: it is written by --mode=train_and_eval.')
            return self.read(path)
        if not os.path.exists(which):
            raise UserError(f'checkpoint = {which!r}: no such file. Expected latest, best, or the path of one.')
        return self.read(which)

    def read(self, path: str) -> Checkpoint:
        tensors, metadata = tensor_file.read(path)
        step = metadata.get('step')
        if type(step) is not int or step < 0:
            raise tensor_file.DamagedFileError(
                f'{path} is not a checkpoint of a run: its step is {shown(step)}, expected a number.'
            )
        return Checkpoint(path, step, tensors, metadata)


def _link_or_copy(source: str, target: str) -> None:
    """Makes a hard link if the file system supports it, so that a copy of a recent checkpoint takes no space."""
    if os.path.exists(target):
        os.remove(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
