"""A `model_dir`: all its paths, its checkpoints, and the removal of a run by `--fresh`."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterable

from absl import logging

from seg.files import writing

_CHECKPOINT = re.compile(r'ckpt-(\d+)\.safetensors')
_DAMAGED = '.damaged'  # The ending of damaged checkpoints that were set aside.


class RunFolder:
    """The paths of one run. No other module joins the name of a run's file.

    Attributes:
      path: the folder itself, as it was given.
      config: the settings as given, from which the run can be started again.
      operative_config: every setting that was used, defaults included.
      run: hardware, versions and settings; see `seg/run/run_json.py`.
      dataset_info: facts about the training data, for evaluation and prediction.
      model_info: the variables with their shapes, as text.
      metrics: a line for each loop of training and each evaluation.
      results: the scores at the end.
      log: what the terminal showed of the training.
      error_log: tracebacks of bugs.
      report: the page that `--mode=report` writes.
      data_check: what `--mode=check_data` found.
      data_check_page: the same as a page.
      examples_page: the page that `--mode=show_data` writes.
      plan: what `--mode=plan` found.
      export: the folder that `--mode=export` writes; it outlives the run.
      lock: held by the process that trains here.
      train: folder of the training's event files.
      eval: folder of the evaluations' event files, scores and details.
      best: folder of the best checkpoint.
      best_metrics: the scores of the best checkpoint.
    """

    def __init__(self, model_dir: str):
        self.path = model_dir
        self.config = self._path('config.gin')
        self.operative_config = self._path('operative_config.gin')
        self.run = self._path('run.json')
        self.dataset_info = self._path('dataset_info.json')
        self.model_info = self._path('model_info.txt')
        self.metrics = self._path('metrics.jsonl')
        self.results = self._path('results.json')
        self.log = self._path('train.log')
        self.error_log = self._path('error.log')
        self.report = self._path('report.html')
        self.data_check = self._path('check_data.json')
        self.data_check_page = self._path('check_data.html')
        self.examples_page = self._path('show_data.html')
        self.plan = self._path('plan.json')
        self.export = self._path('export')
        self.lock = self._path('.lock')
        self.train = self._path('train')
        self.eval = self._path('eval')
        self.best = self._path('best')
        self.best_metrics = os.path.join(self.best, 'metrics.json')
        self._predictions = self._path('predictions')

    @classmethod
    def made(cls, path: str) -> RunFolder:
        """The folder at a path that a user gave, made if it is missing.

        Raises:
          UserError: if it cannot be made.
        """
        path = os.path.expanduser(path)
        with writing(path):
            os.makedirs(path, exist_ok=True)
        return cls(path)

    def predictions(self, name: str) -> str:
        """The folder of predictions, by the name of their input: a data set's split, or `input` for files."""
        return os.path.join(self._predictions, split_of(name))

    def eval_file(self, split: str, step: int | str, kind: str = '') -> str:
        """The file of an evaluation's scores, or of one kind of its details.

        Args:
          split: name of the data, such as `voc_layout/val`; its last part counts.
          step: step of the weights, followed by a mark for settings other than the training's.
          kind: kind of the details, such as `confusion`; empty for the scores.
        """
        return os.path.join(self.eval, f'{kind}{kind and "-"}{split_of(split)}-{step}.json')

    def images(self, split: str) -> str:
        """The file with the images of the newest evaluation of a split, see `seg/run/evaluated_images.py`."""
        return os.path.join(self.eval, f'images-{split_of(split)}.zip')

    def details(self, split: str, step: int | str, kinds: Iterable[str]) -> dict[str, str]:
        """The files of an evaluation's details as records name them, by their kinds; arguments as for `eval_file`."""
        return {kind: self.relative(self.eval_file(split, step, kind)) for kind in kinds}

    def relative(self, path: str) -> str:
        """A path in this folder as records name it, with slashes."""
        return os.path.relpath(path, self.path).replace(os.sep, '/')

    def named(self, relative: str) -> str | None:
        """The path of a file that a record names; None if it leads out of this folder."""
        path = os.path.normpath(os.path.join(self.path, relative))
        inside = os.path.join(os.path.normpath(self.path), '')
        return path if path.startswith(inside) or inside == './' and not path.startswith(('..', '/')) else None

    # ---- Checkpoints -------------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> str:
        return self._path(f'ckpt-{step:08d}.safetensors')

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints, oldest first; those that were set aside as damaged do not count."""
        return _steps(self.path)

    def damaged(self, checkpoint: str) -> str:
        """The path under which a damaged checkpoint is set aside."""
        return checkpoint + _DAMAGED

    def damaged_checkpoints(self) -> list[str]:
        """Paths of damaged checkpoints that were set aside."""
        return glob.glob(os.path.join(glob.escape(self.path), f'ckpt-*.safetensors{_DAMAGED}'))

    def has_checkpoint(self) -> bool:
        """Whether a run has saved a checkpoint here, damaged or not."""
        return bool(self.checkpoint_steps() or self.damaged_checkpoints())

    def best_checkpoint(self, step: int) -> str:
        return os.path.join(self.best, os.path.basename(self.checkpoint(step)))

    def best_steps(self) -> list[int]:
        """Steps of the checkpoints under `best/`; there is more than one only after a kill."""
        return _steps(self.best)

    # ---- The whole folder --------------------------------------------------------------------------------------------

    def holds_run(self) -> bool:
        """Whether a run has left its settings or scores here."""
        return any(os.path.isfile(path) for path in (self.run, self.metrics, self.results))

    def clear(self) -> None:
        """Removes the files of a run, including temporary ones, and nothing else; the lock remains."""
        paths = {
            *(self.config, self.operative_config, self.run, self.dataset_info, self.model_info, self.metrics),
            *(self.results, self.log, self.error_log, self.report, self.train, self.eval, self.best),
            *(self._predictions, self.data_check, self.data_check_page, self.examples_page, self.plan),
        }
        patterns = [glob.escape(path) for path in paths] + [os.path.join(glob.escape(self.path), 'ckpt-*')]
        removed = {path for pattern in patterns for end in ('', '.tmp-*') for path in glob.glob(pattern + end)}
        for path in removed:
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
        if removed:
            logging.info('Removed the earlier run from %s.', self.path)

    def _path(self, name: str) -> str:
        return os.path.join(self.path, name)


def split_of(name: str) -> str:
    """The split in the name of a data set: `val` in `voc_layout/val`."""
    return name.rpartition('/')[2]


def _steps(folder: str) -> list[int]:
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    return sorted(int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name)))
