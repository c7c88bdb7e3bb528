"""Where the records of a split are: in which file, and at which place there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Places:
    """The records of several files.

    Args:
      paths: the files, each once.
      owners: int [N], the file of each record.
      numbers: int [N], its number in the file.
    """

    def __init__(self, paths: Sequence[str], owners: np.ndarray, numbers: np.ndarray):
        self.paths, self.owners, self.numbers = tuple(paths), owners, numbers

    def __len__(self) -> int:
        return len(self.owners)

    def place(self, index: int) -> str:
        """File and number of the record at a position, for messages."""
        return f'{self.paths[self.owners[index]]}, record {self.numbers[index]}'

    def by_file(self) -> list[np.ndarray]:
        """The positions of the records of each file, ascending."""
        return np.split(
            np.argsort(self.owners, kind='stable'), np.cumsum(np.bincount(self.owners, minlength=len(self.paths)))[:-1]
        )
