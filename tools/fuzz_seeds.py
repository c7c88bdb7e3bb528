"""What a format of tools/fuzz.py consists of."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from fuzz_mutations import of_bytes

Mutation = Callable[[random.Random, bytes], bytes]


@dataclasses.dataclass(frozen=True)
class Seed:
    """A valid file: its name within the folder, its content, and its mutations, which are equally frequent."""

    name: str
    content: bytes
    mutations: tuple[Mutation, ...] = (of_bytes,)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
      seeds: the valid files.
      read: called with a path; returns, or raises one of `refusals`.
      refusals: exceptions by which the readers refuse a file: `UserError`, and what replaces it in a graph.
    """

    seeds: list[Seed]
    read: Callable[[str], object]
    refusals: tuple[type[Exception], ...]
