"""The meaning of the stored values of label maps: the class of each value or colour."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from seg.datasets.class_maps import VOID, ClassMap
from seg.errors import shown

IGNORE = 255  # The ignore label of these data sets.
UNKNOWN = -1  # In place of a class id: the value has no meaning.
# Samples with more than one channel that are not a grey level: a flag, and the colour in the lower 24 bits.
COLORED = 1 << 24


@dataclasses.dataclass(frozen=True)
class Legend:
    """The meaning of stored values.

    Attributes:
      names: the classes in the files.
      values: the stored value of each; with `by_color` its colour, 65536 red + 256 green + blue.
      ids: int32 [names], the id of each in a label map: a class id, or `ignore`.
      ignored: stored values that are ignored.
      origin: where the names come from, for messages: "Classes are 0..2 from {origin}".
      by_color: whether labels are read as colours.
      ignore: the id of ignored values in a label map.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ids: np.ndarray
    ignored: tuple[int, ...]
    origin: str
    by_color: bool = False
    ignore: int = IGNORE

    @property
    def unknown(self) -> int:
        """The id of values without a meaning in a label map: neither a class id nor the ignore label."""
        return UNKNOWN if self.ignore != UNKNOWN else UNKNOWN - 1

    @property
    def plain(self) -> bool:
        """Whether every stored value is the class id, or the ignore label."""
        return (
            not self.by_color
            and self.ignored == (self.ignore,)
            and self.counts_up
            and bool(np.all(self.ids == self.values))
        )

    @property
    def counts_up(self) -> bool:
        """Whether the values of the names are 0, 1, 2, …"""
        return self.values == tuple(range(len(self.names)))

    def id_of(self, value: int) -> int:
        """The class id of a stored value, `ignore`, or `unknown`."""
        return self._known.get(value, self.unknown)

    def lookup(self, samples: tf.Tensor) -> tf.Tensor:
        """Class ids of stored values, int32 of any shape; `unknown` where a value has no meaning."""
        if self.plain:
            return samples
        known = sorted(self._known)
        ids = np.array([self._known[value] for value in known], np.int32)
        if not self.by_color and known[0] >= 0:  # A table is faster than a search.
            table = np.full(known[-1] + 2, self.unknown, np.int32)
            table[known] = ids
            last = known[-1] + 1
            return tf.gather(tf.constant(table), tf.where((samples < 0) | (samples > last), last, samples))
        place = tf.searchsorted(tf.constant(known, tf.int32), tf.reshape(samples, [-1]))
        place = tf.reshape(tf.minimum(place, len(known) - 1), tf.shape(samples))
        return tf.where(tf.gather(tf.constant(known, tf.int32), place) == samples, tf.gather(ids, place), self.unknown)

    def shown_value(self, value: int) -> str:
        """A stored value for messages: a number, or a colour as #rrggbb."""
        return f'#{value % COLORED:06x}' if self.by_color or value >= COLORED else str(value)

    def shown_classes(self) -> str:
        """The classes and their values, for messages: '0..2 from class_names.txt; 255 is ignored'."""
        if self.counts_up and not self.by_color:
            values = f'0..{len(self.values) - 1}'
        else:
            pairs = [f'{self.shown_value(v)} {shown(n)}' for v, n in zip(self.values, self.names, strict=True)]
            values = ', '.join(pairs[:8]) + (', …' if len(pairs) > 8 else '')
        ignored = ' and '.join(map(self.shown_value, self.ignored))
        return f'{values} from {self.origin}' + (f'; {ignored} is ignored' if self.ignored else '')

    @property
    def _known(self) -> dict[int, int]:
        return dict(zip(self.values, self.ids.tolist(), strict=True)) | dict.fromkeys(self.ignored, self.ignore)


def class_ids(mapping: ClassMap, ignore: int = IGNORE) -> np.ndarray:
    """`Legend.ids` of label maps."""
    return np.where(mapping.ids == VOID, ignore, mapping.ids).astype(np.int32)


def instance_ids(mapping: ClassMap) -> np.ndarray:
    """`Legend.ids` of instances: 0 for the background, the first name; then classes from 1 on; void is K + 1."""
    void = len(mapping.names) + 1
    return np.concatenate([[0], np.where(mapping.ids == VOID, void, mapping.ids + 1)]).astype(np.int32)
