"""`--mode=show_data`."""

from __future__ import annotations

from typing import Any

from absl import flags, logging

from seg.errors import UserError
from seg.modes.base import ExperimentMode, Flag
from seg.run.folder import RunFolder

_EXAMPLES = 24  # Examples on the page.


class ShowData(ExperimentMode):
    """Writes a page with the first training examples as the model gets them: augmented, with their annotations."""

    name = 'show_data'
    aliases = ('show', 'view', 'browse', 'visualize')
    flags = (
        Flag(
            'output',
            flags.DEFINE_string,
            None,
            'Folder to write show_data.html to. Default: model_dir.',
        ),
    )
    needs_train_data = True

    def idle_bindings(self, needs) -> list[str]:
        return [pattern for pattern in super().idle_bindings(needs) if pattern != 'augments.*']

    def check_experiment(self) -> None:
        experiment = self.experiment
        self._source = experiment.task.training_input(experiment.train_data, experiment.run_config.batch_size)

    def execute(self) -> dict[str, Any] | None:
        """Draws in process 0; the others wait for it and return None."""
        from seg.executor.agreement import together

        with together(self.engine):
            return self._show() if self.engine.chief else None

    def _show(self) -> dict[str, Any]:
        from seg.executor import first_examples
        from seg.inspection import figures, page

        experiment = self.experiment
        task, batch_size = experiment.task, experiment.run_config.batch_size
        drawn = first_examples.drawn(task, self._source, _EXAMPLES)
        shown = [figures.embed(name, pixels) for name, pixels in drawn]
        if not shown:
            raise UserError(
                f'--mode=show_data: the task {type(task).__name__} draws no examples. It may define training_figure: '
                'see docs/plugins_training.md.'
            )
        folder = RunFolder.made(self.call.flags['output'] or self.folder.path)
        batches = [
            (f'Batch {i // batch_size + 1}', shown[i : i + batch_size]) for i in range(0, len(shown), batch_size)
        ]
        page.write_examples(folder.examples_page, experiment.train_data.info.name, batches)
        logging.info('Page with training examples: %s', folder.examples_page)
        return {'examples': len(shown), 'page': folder.examples_page}


MODE = ShowData
