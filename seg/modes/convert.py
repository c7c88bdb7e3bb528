"""`--mode=convert`."""

from __future__ import annotations

import os
from typing import Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import ExperimentMode, Flag


class Convert(ExperimentMode):
    """Writes the training and evaluation data as a set of TensorFlow Datasets, which can be read by position."""

    name = 'convert'
    aliases = ('conversion', 'to_records', 'records')
    flags = (
        Flag(
            'output',
            flags.DEFINE_string,
            None,
            'Folder to write the records to, a new one. The same command continues a conversion that was stopped.',
        ),
    )
    needs_train_data = True
    needs_eval_data = True

    def check_files(self) -> None:
        output = self.call.flags['output']
        if not output:
            raise UserError('--mode=convert: no --output. Give the folder to write the records to.')
        self._output = os.path.expanduser(output)
        super().check_files()

    def prepare(self) -> None:
        from seg.datasets.records import conversion

        experiment = self.experiment
        data = {'experiment.train_data': experiment.train_data, 'experiment.eval_data': experiment.eval_data}
        self._plan = conversion.plan(data, experiment.target)
        conversion.check_place(self._output, self._plan)

    def execute(self) -> dict[str, Any] | None:
        """Converts in process 0; the others wait for it and return None."""
        from seg.executor.agreement import together

        with together(self.engine):
            return self._convert() if self.engine.chief else None

    def _convert(self) -> dict[str, Any]:
        from seg.datasets.records import conversion

        results = conversion.convert(self._plan, self._output)
        train, val = [*self._plan.splits, *self._plan.splits][:2]
        logging.info(
            'A gin file reads it by:\n\n'
            'experiment.train_data = @train/datasets.tfds\n'
            'experiment.eval_data = @eval/datasets.tfds\n'
            'datasets.tfds.name = %r\n'
            'train/datasets.tfds.split = %r\n'
            'eval/datasets.tfds.split = %r\n',
            *(os.path.abspath(self._output), train, val),
        )
        return results


MODE = Convert
