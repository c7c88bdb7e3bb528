"""`--mode=check_data`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import ExperimentMode, Flag
from seg.run.folder import RunFolder

if TYPE_CHECKING:
    from seg.experiment import Needs


class CheckData(ExperimentMode):
    """Decodes all training and evaluation data, and writes a page about what is wrong with them."""

    name = 'check_data'
    aliases = ('check', 'inspect', 'verify', 'check_dataset')
    flags = (
        Flag(
            'input',
            flags.DEFINE_multi_string,
            [],
            'Folder of images and annotations, if there is no gin file: its layout is guessed, and the gin file that '
            'reads it is printed on standard output, in place of the results.',
        ),
        Flag(
            'output',
            flags.DEFINE_string,
            None,
            'Folder to write check_data.html and check_data.json to. Default: model_dir, or runs/<name of input>.',
        ),
    )
    needs_train_data = True
    needs_eval_data = True
    _gin_file = ''  # That reads the folder `--input`.

    def gin_files(self) -> Sequence[str]:
        return () if self.call.flags['input'] else super().gin_files()

    def load_settings(self) -> str:
        folders = self.call.flags['input']
        if not folders:
            return super().load_settings()
        from seg import config, modes
        from seg.datasets import layouts

        if self.call.gin_files:
            raise UserError(
                f'--input={folders[0]} and --gin_file={self.call.gin_files[0]}: --input guesses what a gin file says. '
                'Leave one out.'
            )
        if len(folders) > 1:
            raise UserError(f'--input={",".join(folders)}: --mode={self.name} checks one folder.')
        layout, folder = layouts.guess(folders[0])
        modes.load_parts(self.call.plugin_specs)
        logging.info('%s: %s. It is checked as the last lines on standard output read it.', folders[0], layout.title)
        self._gin_file = layout.text(folder)
        config.parse([layout.recipe], [*layout.bindings(folder), *self.call.gin_params])
        data = os.path.abspath(os.path.expanduser(folders[0]))
        directory = self.directory((), self.call.model_dir or os.path.join('runs', os.path.basename(data)))
        output = os.path.abspath(os.path.expanduser(self.call.flags['output'] or directory))
        if os.path.commonpath([data, output]) == data:
            raise UserError(
                f'--output={output} lies in --input={folders[0]}, where its JSON file would become a part of the data. '
                'Give --output=DIR another folder.'
            )
        return directory

    def needs(self) -> Needs:
        return dataclasses.replace(super().needs(), inspected=True)

    def idle_bindings(self, needs: Needs) -> list[str]:
        if self._gin_file or not self.experiment.task:  # What a guessed recipe says of its own data is no mistake.
            return ['*']
        return super().idle_bindings(needs)

    def validate(self) -> str:
        raise UserError(
            f'--validate makes the quick checks of a training; --mode={self.name} makes all. Leave one out.'
        )

    def execute(self) -> dict[str, Any] | None:
        """Checks in process 0; the others wait for it and return None."""
        from seg.executor.agreement import together

        with together(self.engine):
            return self._check() if self.engine.chief else None

    def _check(self) -> dict[str, Any]:
        from seg.inspection import check
        from seg.structures import DataLimits

        experiment, task = self.experiment, self.experiment.task
        data = dict(experiment.unreadable)
        for slot, dataset in (
            ('experiment.train_data', experiment.train_data),
            ('experiment.eval_data', experiment.eval_data),
        ):
            data |= {} if dataset is None else {slot: dataset}
        limits, self_test = (task.data_limits(), task.self_test) if task else (DataLimits(), lambda dataset: None)
        return self._write(check.check(data, experiment.target, limits, self_test))

    def _write(self, checked) -> dict[str, Any]:
        """Logs the findings and writes both files. Returns the numbers of findings and the paths."""
        from seg.files import write_json
        from seg.inspection import check, page

        folder = RunFolder.made(self.call.flags['output'] or self.folder.path)
        check.log(checked)
        record = checked.record()
        write_json(folder.data_check, record)
        page.write(folder.data_check_page, checked)
        logging.info('Page with overlays: %s', folder.data_check_page)
        counts = {severity: record[severity] for severity in ('fix', 'warn', 'note')}
        guessed = {'gin_file': self._gin_file} if self._gin_file else {}
        return counts | {'page': folder.data_check_page, 'report': folder.data_check} | guessed

    @classmethod
    def printed(cls, results: dict[str, Any]) -> str:
        """A guessed gin file alone, so that the output can be saved as the file; else the results."""
        return results.get('gin_file') or super().printed(results)

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        if not results or not results['fix']:
            return None
        return f'{results["fix"]} finding(s) must be fixed: see {results["page"]}.'


MODE = CheckData
