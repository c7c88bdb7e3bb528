"""Unreadable images: they count nowhere, a message names them, and a loop without a readable image ends the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from seg.errors import UserError
from seg.structures import Input

_REREAD = 8  # Largest number of images of a loop that are read again, to find the reason.


def report(source: Input, first: int, missing: Sequence[int], indices: Sequence[int]) -> None:
    """Warns of the images of a loop, or of an evaluation, that could not be read.

    Args:
      source: input of the images.
      first: position in its stream of the loop's first image.
      missing: positions in the loop of images with weight 0, without padding.
      indices: positions in the data set of all images of the loop; -1 for padding.

    Raises:
      UserError: if no image could be read, or the cause is the data set's labels or an augmentation, not the file.
    """
    if not len(missing):
        return
    indices = np.asarray(indices)
    reason = source.why_unreadable
    reasons = [reason(first + int(place)) if reason else '' for place in missing[:_REREAD]]
    found = f'{source.names(indices[missing])}. {source.image_name(int(indices[missing[0]]))}: {reasons[0]}'
    if len(missing) == np.count_nonzero(indices >= 0):
        raise UserError(
            f'{source.name}: none of {len(missing)} image(s) could be read: {found}. Training and scores need images. '
            'Repair the files, then start the same command again.'
        )
    logging.warning('%s: %d image(s) could not be read and count nowhere: %s.', source.name, len(missing), found)
