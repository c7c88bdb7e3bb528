"""Trainings and conversions in processes of their own, for `tools/kill.py` and `tools/kill_convert.py`."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, SAVES, EVALUATIONS, KEPT = 60, 5, 20, 3
SETTINGS = (
    'BACKBONE=@backbones.tiny',
    'backbones.tiny.channels=4',
    'decoders.deeplab_v3plus.aspp_channels=8',
    'decoders.deeplab_v3plus.decoder_channels=8',
    'decoders.deeplab_v3plus.low_level_channels=4',
    'BATCH_SIZE=2',
    f'TRAIN_STEPS={STEPS}',
    'RunConfig.iterations_per_loop=5',
    f'RunConfig.save_checkpoints_steps={SAVES}',
    f'RunConfig.eval_every={EVALUATIONS}',
    f'RunConfig.keep_checkpoint_max={KEPT}',
    'RunConfig.num_pictures=1',
)
SCENES = ('CROP=(64, 64)', 'datasets.shapes.num_examples=12', 'datasets.shapes.min_object_size=12')
_LIMIT = 400  # Seconds of one start on a busy machine.


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a training is started.

    Attributes:
      engine: `tensorflow` or `jax`.
      processes: processes that share the run.
      compiled: folder for JAX's compiled programs.
    """

    engine: str
    processes: int
    compiled: pathlib.Path

    def start(self, flags: Sequence[str], log: str) -> list[int]:
        """Starts the processes. Returns their ids."""
        if self.engine == 'tensorflow':
            import preloaded

            return [preloaded.start(flags, log, str(ROOT))]
        environment = os.environ | {
            'JAX_PLATFORMS': 'cpu',
            # Compiling without optimizations takes a fraction of the time.
            'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
            'JAX_COMPILATION_CACHE_DIR': str(self.compiled),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        own: list[list[str]] = [[]]
        if self.processes > 1:
            shared = [f'--coordinator=127.0.0.1:{_unused_port()}', f'--num_processes={self.processes}']
            own = [[*shared, f'--process_id={i}'] for i in range(self.processes)]
        with open(log, 'ab') as output:
            return [
                subprocess.Popen(
                    [sys.executable, '-m', 'seg.seg_main', '--engine=jax', *flags, *more],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                ).pid
                for more in own
            ]


def _unused_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


class Run:
    """A folder and the processes that write there, one start after the other.

    Args:
      folder: the folder, such as a `model_dir`.
      launch: how a process is started.
      flags: of `seg_main`.

    Attributes:
      folder: the folder.
      log: file with all that the processes print.
      starts: starts so far.
      statuses: exit statuses of the processes of the last start; None while one is running.
    """

    def __init__(self, folder: pathlib.Path, launch: Launch, flags: Sequence[str]):
        self.folder = folder
        self.log = f'{folder}.log'
        self.starts = 0
        self.statuses: list[int | None] = []
        self._launch, self._flags, self._ids = launch, flags, []

    @property
    def status(self) -> int:
        """0 if all ended so, otherwise the first other status."""
        return next((status for status in self.statuses if status), 0)

    def start(self) -> None:
        self.starts += 1
        self._ids = self._launch.start(self._flags, self.log)
        self.statuses = [None] * len(self._ids)

    def alive(self) -> bool:
        """Whether any process is running."""
        for i, number in enumerate(self._ids):
            if self.statuses[i] is None:
                process, status = os.waitpid(number, os.WNOHANG)
                if process:
                    self.statuses[i] = os.waitstatus_to_exitcode(status)
        return None in self.statuses

    def send(self, number: int, which: int | None = None) -> None:
        """Sends a signal to a running process, or to all."""
        self.alive()
        for i, (process, status) in enumerate(zip(self._ids, self.statuses, strict=True)):
            if status is None and which in (None, i):
                os.kill(process, number)

    def wait(self) -> float:
        """Waits for the end of all, and kills what takes too long. Returns the seconds."""
        start = time.monotonic()
        while self.alive():
            time.sleep(0.01)
            if time.monotonic() - start > _LIMIT:
                self.send(signal.SIGKILL)
        return time.monotonic() - start

    def until(self, moment: Callable[[Run], bool]) -> bool:
        """Waits for a moment. Returns False if the process ended first."""
        start = time.monotonic()
        while self.alive() and time.monotonic() - start < _LIMIT:
            if moment(self):
                return True
            time.sleep(0.0005)
        return False

    def names(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern, root_dir=self.folder, recursive=True))

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / 'metrics.jsonl'
        text = path.read_text(encoding='utf-8') if path.exists() else ''
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]

    def reached(self, kind: str) -> int:
        return max((line['step'] for line in self.lines() if line['kind'] == kind), default=0)

    def saved(self) -> int:
        return max((int(name[5:13]) for name in self.names('ckpt-????????.safetensors')), default=0)

    def last_words(self) -> str:
        return pathlib.Path(self.log).read_text(encoding='utf-8', errors='replace').strip().rpartition('\n')[2]


def training(folder: pathlib.Path, launch: Launch, data: Sequence[str] = SCENES) -> Run:
    """A training in a `model_dir`.

    Args:
      folder: the `model_dir`.
      launch: how it is started.
      data: settings of the data; `of_records` gives others.
    """
    flags = ['--gin_file=gin/deeplab_shapes.gin', '--plugins=experiments/tiny_backbone/plugin.py']
    flags += [f'--model_dir={folder}', '--deterministic', '--strategy=one', '--precision=float32']
    return Run(folder, launch, [*flags, *(f'--gin_param={setting}' for setting in (*SETTINGS, *data))])


def conversion(folder: pathlib.Path, launch: Launch, recipe: str, settings: Sequence[str]) -> Run:
    """A conversion of the data of a gin file to records in a folder."""
    flags = ['--mode=convert', f'--gin_file={recipe}', f'--output={folder}']
    return Run(folder, launch, [*flags, *(f'--gin_param={setting}' for setting in settings)])


def of_records(folder: pathlib.Path) -> tuple[str, ...]:
    """Settings that read the records of a conversion of procedural scenes."""
    return (
        'experiment.train_data=@train/datasets.tfds',
        'experiment.eval_data=@eval/datasets.tfds',
        f'datasets.tfds.name={str(folder)!r}',
        "train/datasets.tfds.split='train'",
        "eval/datasets.tfds.split='val'",
        'tasks.semantic.augments=[@augments.scale_crop_flip]',  # Sizes of images in files are not known beforehand.
        'augments.scale_crop_flip.size=(64, 64)',
    )
