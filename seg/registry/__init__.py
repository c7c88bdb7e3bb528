"""Registries of plugins: one per kind, each part known to gin as `<kind>.<name>`.

A part registers itself. Gin files name it by an un-called reference, and the owner of the setting builds it:

    @backbones.register('resnet50')
    def resnet50(*, output_stride, norm, stem='conv7'):
      '''ResNet-50 (He et al., 2016).'''

    models.deeplab.backbone = @backbones.resnet50                     # in a gin file

    backbones.build(backbone, 'models.deeplab.backbone', output_stride=16, norm=norm)

Arguments that follow from the architecture are *supplied* in Python and refused in gin, so that one part can replace
another without unused bindings. A part takes the essential argument of its kind and any of the other supplied ones.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

import gin

from seg.errors import UserError
from seg.registry.entries import ENTRIES, LOAD_MORE, Entry, enter, entry_of
from seg.registry.entries import temporary as temporary  # For tests and benchmarks.
from seg.registry.factory import Factory


class Registry:
    """The parts of one kind.

    Attributes:
      kind: plural name: folder below `seg/` and gin module.
      noun: singular name, for messages.
      essential: supplied arguments that every builder takes.
      supplied: all arguments that the framework may supply.
    """

    def __init__(self, kind: str, essential: Iterable[str] = (), others: Iterable[str] = ()):
        self.kind = kind
        self.noun = 'loss' if kind == 'losses' else kind.removesuffix('s')
        self.essential = tuple(essential)
        self.supplied = self.essential + tuple(others)

    def register(self, name: str, target: str | None = None, free: Iterable[str] = ()) -> Callable[[Any], Any]:
        """Decorator that registers a function or class and returns it unchanged.

        Only references in gin files get bindings; a direct call in Python does not.

        Args:
          name: its name in gin files, after the kind.
          target: for tasks, losses, metrics and data sets: the ground truth that the part uses, 'label_map',
            'instances' or a word of your own. A task must have one; other parts without a target fit every task.
          free: parameters that may change when a run is resumed, such as `data_dir`.

        Raises:
          UserError: see `enter`.
        """

        def decorate(builder):
            enter(self.kind, name, builder, sys._getframe(1), self.essential, self.supplied, free, target)
            return builder

        return decorate

    def entries(self) -> list[Entry]:
        return sorted((e for e in ENTRIES.values() if e.kind == self.kind), key=lambda entry: entry.name)

    def names(self) -> list[str]:
        return [entry.name for entry in self.entries()]

    def get(self, name: str) -> Entry:
        """Returns an Entry by name.

        Raises:
          UserError: if there is none; the message lists similar names, known names and how to load more.
        """
        if entry := ENTRIES.get(f'seg.{self.kind}.{name}'):
            return entry
        raise UserError(unknown(f'{self.kind}.{name}'))

    def check(self, value: Any, slot: str) -> Factory:
        """Checks that a setting holds a reference to a part of this kind, and binds it to the current gin scope.

        Args:
          value: gin's value for `@kind.name`.
          slot: the setting, such as `models.deeplab.backbone`.

        Raises:
          UserError: if it is a string, an object, a part of another kind or an unregistered function.
        """
        entry = value.entry if isinstance(value, Factory) else entry_of(value)
        if entry is None or entry.kind != self.kind:
            mistake = self._mistake(value, entry)
            raise UserError(f'{slot}: expected a {self.noun}, written @{self.kind}.<name>. {mistake}')
        if isinstance(value, Factory):
            return dataclasses.replace(value, slot=slot)
        return Factory(entry, slot, value, tuple(gin.current_scope()), self.supplied)

    def check_each(self, values: Any, slot: str) -> list[Factory]:
        """Checks a setting that holds a list of references, each with `check`.

        Raises:
          UserError: as `check`, and if it is not a list.
        """
        if not isinstance(values, list | tuple):
            entry = entry_of(values)
            received = f'{entry.reference} without brackets' if entry else repr(values)
            raise UserError(f'{slot}: expected a list of {self.kind}, [@{self.kind}.<name>, …], received {received}.')
        return [self.check(value, f'{slot}[{i}]') for i, value in enumerate(values)]

    def build(self, value: Any, slot: str, **supplied: Any) -> Any:
        """Checks a reference and calls it with the supplied values that its signature takes.

        Raises:
          TypeError: if this kind does not know a supplied value.
          UserError: if the reference is wrong, or a parameter without default is not bound.
        """
        return self.check(value, slot)(**supplied)

    def _mistake(self, value: Any, entry: Entry | None) -> str:
        known = f'Known {self.kind}: {", ".join(self.names()) or "none"}.'
        if entry:
            return f'Received {entry.reference}, which belongs to {entry.kind or "no kind"} ({entry.place}). {known}'
        if isinstance(value, str):
            name = value.lstrip('@%').removesuffix('()').rpartition('.')[2]
            if name in self.names():
                return f'Received the string {value!r}: write @{self.kind}.{name}, without quotes.'
            hint = ''.join(f' Did you mean @{self.kind}.{near}?' for near in near_misses(name, self.names())[:1])
            return f'Received the string {value!r}; a reference has no quotes.{hint} {known}'
        if inspect.isfunction(value) or inspect.isclass(value):
            home = f'{value.__module__}.{value.__qualname__}'
            return f'Received {home}, which is not registered: put @{self.kind}.register(...) on it. {known}'
        if value is None or isinstance(value, (bool, int, float, list, tuple, dict)):
            return f'Received {value!r}. {known}'
        built = entry_of(type(value))
        spelling = built.reference if built else f'@{self.kind}.<name>'
        return f'Received an object ({type(value).__name__}) that was built already: write {spelling}, without ().'


backbones = Registry('backbones', ['output_stride'], ['norm', 'multi_grid'])
decoders = Registry('decoders', ['backbone'], ['output_stride', 'norm'])
heads = Registry('heads', [], ['num_classes', 'norm'])
losses = Registry('losses', [], ['num_classes', 'ignore_label', 'class_histogram'])
datasets = Registry('datasets', [], ['seed', 'target'])
# Tasks with instances supply `other`: a function that loads a random example of the training data, drawn by a seed,
# int32 [2], in the form of `seg.augments.instances.begin`.
augments = Registry('augments', [], ['ignore_label', 'other'])
metrics = Registry('metrics', [], ['num_classes', 'class_names', 'ignore_label'])
optimizers = Registry('optimizers', ['total_steps'], ['batch_size'])
schedules = Registry('schedules', ['total_steps'], ['batch_size'])
models = Registry('models', [], ['num_classes'])
tasks = Registry('tasks', ['dataset_info'], ['seed', 'class_histogram'])

KINDS: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        backbones, decoders, heads, losses, datasets, augments, metrics, optimizers, schedules, models, tasks,
    )
}  # fmt: skip


def near_misses(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Returns the known names most similar to `name`, best first; case does not matter."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, limit, cutoff=0.6)]


def unknown(key: str) -> str:
    """Explains that nothing is registered as `kind.name`: kind, similar names with file and line, known names."""
    kind, _, name = key.removeprefix('seg.').rpartition('.')
    by_key = {entry.key: entry for entry in ENTRIES.values()}
    similar = near_misses(name, {entry.name for entry in by_key.values()})
    near = [known for known, entry in by_key.items() if entry.name == name]
    near += [f'{kind}.{other}' for other in similar if f'{kind}.{other}' in by_key]
    if kind not in KINDS:
        near += near_misses(key, by_key) if kind else []  # The kind may be misspelled.
        near += [known for known, entry in by_key.items() if entry.name in similar]
    registry = KINDS.get(kind)
    what = f'no {registry.noun} named {name!r}' if registry else f'nothing named {key!r}'
    lines = [f'{what} is registered.']
    lines += [f'  Did you mean {other}? ({by_key[other].place})' for other in list(dict.fromkeys(near))[:3]]
    if registry:
        lines.append(f'  Known {kind}: {", ".join(registry.names()) or "none"}.')
    else:
        lines.append(f'  A part has the name <kind>.<name>; --list shows all. Kinds: {", ".join(KINDS)}.')
    return '\n'.join([*lines, f'  {LOAD_MORE}'])
