"""`--mode=report`."""

from __future__ import annotations

from absl import flags

from seg.errors import UserError
from seg.modes.base import Flag, Mode


class Report(Mode):
    """Writes one HTML page about the run in model_dir, finished or not; needs neither its data nor TensorFlow."""

    name = 'report'
    aliases = ('summary', 'html')
    flags = (Flag('output', flags.DEFINE_string, None, 'HTML file to write. Default: report.html in model_dir.'),)

    def run(self) -> None:
        from seg.report import page

        if not self.call.model_dir:
            raise UserError('--mode=report: give --model_dir=…, the directory of a run, such as runs/deeplab_shapes.')
        page.write(self.directory((), self.call.model_dir), self.call.flags['output'])


MODE = Report
