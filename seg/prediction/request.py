"""What `--input`, `--output` and `--probabilities` ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from seg.errors import UserError
from seg.prediction.sources import Source, from_files
from seg.run.folder import RunFolder


class Request(NamedTuple):
    """What is to be predicted, and where to.

    Attributes:
      pictures: found on disk; None for the evaluation data.
      output: the folder; None for the split's own in `model_dir`.
      probabilities: whether class probabilities are to be written.
    """

    pictures: list[Source] | None
    output: str | None
    probabilities: bool

    @classmethod
    def of(
        cls, mode: str, model_dir: str, inputs: str | Sequence[str], output: str | None, probabilities: bool
    ) -> Request | None:
        """Finds the pictures. Returns None for other modes than `predict`.

        Args:
          mode: of the run.
          model_dir: of the run.
          inputs: see `sources.from_files`; empty for the evaluation data.
          output: the folder; None for `predictions/…` in `model_dir`.
          probabilities: whether class probabilities are to be written.

        Raises:
          UserError: if the mode has no use for them, or an input finds nothing.
        """
        if mode != 'predict':
            given = {'input': inputs, 'output': output, 'probabilities': probabilities}
            for name in (name for name, value in given.items() if value):
                raise UserError(f'--{name} is for --mode=predict; this is --mode={mode}.')
            return None
        if output is not None:
            output = os.path.expanduser(output)
        if not inputs:
            return cls(None, output, probabilities)
        output = output or RunFolder(model_dir).predictions('input')
        return cls(from_files(inputs, output), output, probabilities)
