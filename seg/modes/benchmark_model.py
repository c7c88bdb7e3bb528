"""`--mode=benchmark_model`."""

from __future__ import annotations

import os
from typing import Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import CHECKPOINT, Call, Flag
from seg.modes.predicting import MODEL, Predicting

_COLUMNS = ('p50_ms', 'p90_ms', 'p99_ms', 'images_per_second', 'peak_memory_mb')


class BenchmarkModel(Predicting):
    """Measures latency, throughput and memory of a run's model, of exported files, or of both side by side."""

    name = 'benchmark_model'
    aliases = ('benchmark', 'latency', 'profile', 'speed')
    flags = (
        MODEL,
        CHECKPOINT,
        Flag('batch_sizes', flags.DEFINE_list, ['1', '4'], 'Sizes of the batches to measure, separated by commas.'),
        Flag('rounds', flags.DEFINE_integer, 50, 'Measured calls of each.'),
    )

    def __init__(self, call: Call):
        """Finds the files and loads the settings.

        Raises:
          UserError: for a mistake in flags or settings, or a file that does not exist.
        """
        sizes, self._rounds = call.flags['batch_sizes'], call.flags['rounds']
        self._sizes = [_number('batch_sizes', size) for size in (sizes.split(',') if isinstance(sizes, str) else sizes)]
        _number('rounds', self._rounds)
        self._paths: list[str] = []
        super().__init__(call)

    def open(self, path: str, checkpoint: str) -> None:
        """Splits the paths of several files, which are opened in processes of their own; a checkpoint is of the run."""
        self._paths = [path] if os.path.exists(os.path.expanduser(path)) else path.split(',')
        for each in self._paths:
            if not os.path.exists(os.path.expanduser(each)):
                raise UserError(f'--model={each}: there is no such file. Several are separated by commas.')

    def validated(self) -> str:
        return ', '.join(self._paths) if self.alone else super().validated()

    def check_weights(self) -> None:
        if not self.alone:
            super().check_weights()

    def execute(self) -> dict[str, Any]:
        from seg.serving import latency

        models: list[dict[str, Any]] = []
        if not self.alone:
            models += self._of_run()
        for path in self._paths:
            found: dict[tuple, dict[str, Any]] = {}
            for size in self._sizes:
                figures = latency.of_file(os.path.expanduser(path), size, self._rounds)
                found.setdefault((figures['batch'], 'error' in figures), {'model': path, **figures})
            models += found.values()  # A file with a fixed batch is there once.
        logging.info('\n%s', _table(models))
        return {'rounds': self._rounds, 'models': models}

    def _of_run(self) -> list[dict[str, Any]]:
        import keras

        from seg.prediction import canvas
        from seg.serving import latency

        model = self.model()
        found = []
        for size in self._sizes:
            if size % model.predictor.replicas:
                raise UserError(
                    f'--batch_sizes={size}: does not divide among the {model.predictor.replicas} replicas of the run.'
                )
            batch = canvas.batch(latency.images(size, model.canvas), size, model.canvas, keras.config.floatx())

            def call(batch: dict[str, Any] = batch, size: int = size) -> None:
                predictions = model.predictor(batch)
                for index in range(size):
                    predictions.get('classes', index)

            figures = latency.measured(call, size, self._rounds)
            found.append({'model': model.path, 'format': model.format, 'batch': size, **figures})
        return found

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        failed = [f'{model["model"]}: {model["error"]}' for model in results['models'] if 'error' in model]
        return f'Not measured: {"; ".join(failed)}' if failed else None


def _number(name: str, value: Any) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(f'--{name}={value}: expected whole numbers from 1 on.')
    return number


def _table(models: list[dict[str, Any]]) -> str:
    """The figures, a line for each model and batch."""
    from seg.export.columns import aligned

    rows = [('batch', *(name.replace('_', ' ') for name in _COLUMNS), 'model')]
    for model in models:
        figures = [f'{model[name]:.1f}' for name in _COLUMNS] if 'error' not in model else ['-'] * len(_COLUMNS)
        quantize = model.get('quantize', 'none')
        form = model.get('format', '?') + (f', {quantize}' if quantize != 'none' else '')
        rows.append((str(model['batch']), *figures, f'{model["model"]} ({form})'))
    return aligned(rows, right=range(len(_COLUMNS) + 1))


MODE = BenchmarkModel
