"""Run lengths of instance masks: small, and readable at any point without decoding.

The runs of a mask are an ascending list of positions, start, stop, start, stop, …: the mask is set from each start
up to its stop. Position p = column * height + row, as in COCO. So the pixel at p is set where the number of entries
<= p is odd. They are the cumulative sums of COCO's run lengths, without the size of the image where the last run is
not set: the list has an even length, and is empty for an empty mask.

This module has the host's functions, in numpy; `seg.masks.ragged` has those for TensorFlow's graphs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

_MOST_DIGITS = 8  # Digits of 5 bits in a run length that is read: enough for any image, and no overflow.
_GROUPS = 7  # Digits of 5 bits that a run length below 2^34 needs.


@dataclasses.dataclass(frozen=True)
class Runs:
    """Masks of N instances in flat arrays.

    Attributes:
      ends: int32 [sum of M_n], the runs of one instance after the other.
      splits: int64 [N + 1]: the runs of instance n are `ends[splits[n] : splits[n + 1]]`.
    """

    ends: np.ndarray
    splits: np.ndarray

    def __getitem__(self, n: int) -> np.ndarray:
        return self.ends[self.splits[n] : self.splits[n + 1]]


def from_strings(strings: Sequence[bytes], sizes: np.ndarray) -> tuple[Runs, np.ndarray]:
    """Reads COCO's compressed run-length encodings, all at once.

    COCO writes the lengths of the runs, beginning with one that is not set. From the fourth on, a length is written as
    its difference to the length two before it. Numbers are signed, in base 32: 5 bits per character, lowest first, a
    sixth bit that says whether more follow, plus 48.

    Args:
      strings: N strings.
      sizes: int [N], number of pixels of each image.

    Returns:
      The runs, and for each instance the number of pixels that its runs cover, set or not, int64 [N]; -1 where the
      string is damaged. Where that is not the size of the image, the runs are empty.
    """
    count = len(strings)
    lengths = np.fromiter(map(len, strings), np.int64, count)
    digits = np.frombuffer(b''.join(strings), np.uint8).astype(np.int64) - 48
    string = np.repeat(np.arange(count), lengths)
    sound = lengths > 0
    sound[string[(digits < 0) | (digits > 63)]] = False
    is_last = (digits & 32) == 0
    final = np.cumsum(lengths)[lengths > 0] - 1
    sound[string[final[~is_last[final]]]] = False
    is_last[final] = True  # The end of a damaged string is not a part of the next one.

    stops = np.flatnonzero(is_last)
    starts = np.concatenate([[0], stops + 1])[:-1].astype(np.int64)
    used = stops - starts + 1
    string = string[stops]  # From here on, one entry per number.
    sound[string[used > _MOST_DIGITS]] = False
    place = np.minimum(np.arange(len(digits)) - np.repeat(starts, used), _MOST_DIGITS)
    values = np.add.reduceat((digits & 31) << (5 * place), starts) if len(starts) else np.zeros(0, np.int64)
    values -= np.where(digits[stops] & 16, 1 << (5 * np.minimum(used, _MOST_DIGITS)), 0)

    numbers = np.bincount(string, minlength=count)
    begins = np.cumsum(numbers) - numbers
    index = np.arange(len(values)) - begins[string]
    for chain in (index % 2 == 1, (index % 2 == 0) & (index > 0)):
        values = np.where(chain, _running_sum(np.where(chain, values, 0), string, begins), values)
    sound[string[values < 0]] = False
    ends = _running_sum(values, string, begins)
    covered = np.where(sound, 0, -1)
    last = begins[sound] + numbers[sound] - 1
    covered[sound] = ends[last]

    kept = np.where(covered == sizes, numbers // 2 * 2, 0)
    splits = np.concatenate([[0], np.cumsum(kept)])
    return Runs(ends[index < kept[string]].astype(np.int32), splits), covered


def _running_sum(values, owner, begins):
    """Cumulative sums of `values`, restarted for every owner."""
    total = np.cumsum(values)
    before = np.concatenate([[0], total])[begins]
    return total - before[owner]


def boxes_and_areas(runs: Runs, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around the set pixels, float32 [N, 4] (y0, x0, y1, x1), and numbers of set pixels, int64 [N].

    Args:
      runs: masks of N instances; an empty mask has the box 0, 0, 0, 0.
      heights: int [N], height of each instance's image.
    """
    starts, stops = runs.ends[0::2].astype(np.int64), runs.ends[1::2].astype(np.int64)
    count = len(runs.splits) - 1
    owner = np.repeat(np.arange(count), np.diff(runs.splits) // 2)
    used = stops > starts
    starts, stops, owner = starts[used], stops[used], owner[used]
    height = np.asarray(heights, np.int64)[owner]
    first, last = starts // height, (stops - 1) // height
    within = first == last
    low = np.stack([np.where(within, starts % height, 0), first], axis=1)
    high = np.stack([np.where(within, (stops - 1) % height + 1, height), last + 1], axis=1)
    boxes, areas = np.zeros([count, 4], np.float32), np.zeros(count, np.int64)
    if len(owner):
        begins = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        boxes[owner[begins]] = np.concatenate(
            [np.minimum.reduceat(low, begins), np.maximum.reduceat(high, begins)], axis=1
        )
        areas[owner[begins]] = np.add.reduceat(stops - starts, begins)
    return boxes, areas


def to_coco(ends: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed form of the runs `ends` of one instance: `size` [height, width] and `counts`, bytes."""
    total = [height * width] if not len(ends) or ends[-1] < height * width else []
    counts = np.diff(np.concatenate([[0], ends, total]).astype(np.int64))
    return {'size': [int(height), int(width)], 'counts': _compressed(counts)}


def patch_to_coco(top: int, left: int, patch: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed form of an instance, from the part of the image that holds all its pixels.

    Args:
      top: first row of the patch in the image.
      left: first column of the patch in the image.
      patch: bool [h, w], within the image.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Returns:
      `size` [height, width] and `counts`, bytes, as `pycocotools.mask.encode` gives for the whole image.
    """
    # Column by column, each with an unset pixel above it, so that changes alternate between start and stop.
    padded = np.zeros((patch.shape[1], patch.shape[0] + 1), bool)
    padded[:, 1:] = patch.T
    padded = padded.ravel()
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    if len(changes) % 2:
        changes = np.append(changes, len(padded) - 1)
    column, row = np.divmod(changes, patch.shape[0] + 1)
    positions = (left + column) * height + top + row
    if patch.shape[0] == height:  # A run that ends at the bottom and continues at the top of the next column.
        joined = np.flatnonzero(positions[1:-1:2] == positions[2::2])
        positions = np.delete(positions, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    return to_coco(positions, height, width)


def _compressed(counts: np.ndarray) -> bytes:
    """COCO's text form of run lengths; `from_strings` describes it."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    rest = values[:, None] >> (5 * np.arange(_GROUPS + 1))
    digits = rest[:, :-1] & 31
    # A digit is the last one if only its sign is left.
    last = rest[:, 1:] == np.where(digits & 16, -1, 0)
    needed = np.argmax(last, axis=1)[:, None]
    order = np.arange(_GROUPS)
    characters = digits + np.where(order < needed, 32, 0) + 48
    return characters[order <= needed].astype(np.uint8).tobytes()
