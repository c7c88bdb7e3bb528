"""Runs modes from the command line and from Python. Importing this loads neither TensorFlow nor Keras nor gin."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seg.errors import UserError
from seg.executor import notebook
from seg.modes.base import Call, ExperimentMode, Flag, Mode

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.engine.jax.step_cost import StepCost
    from seg.experiment import Experiment

DEFAULT = 'train_and_eval'


def table() -> dict[str, type[Mode]]:
    """All modes by name: one for each module of this folder that has a `MODE`."""
    modules = [importlib.import_module(f'{__name__}.{module.name}') for module in pkgutil.iter_modules(__path__)]
    modes = [vars(module)['MODE'] for module in modules if 'MODE' in vars(module)]
    modes.sort(key=lambda mode: (mode.name != DEFAULT, not mode.trains, mode.name))
    return {mode.name: mode for mode in modes}


def find(name: str) -> type[Mode]:
    """Returns a mode.

    Raises:
      UserError: for an unknown name, with the mode that may be meant.
    """
    known = table()
    if name in known:
        return known[name]
    from seg import registry  # Imports gin, which a report does not need.

    words = {word: mode.name for mode in known.values() for word in (mode.name, *mode.aliases)}
    hints = ''.join(f' Did you mean {words[near]}?' for near in registry.near_misses(name, words)[:1])
    raise UserError(f'--mode={name}: expected one of {", ".join(known)}.{hints}')


def check_flags(mode: type[Mode], given: Mapping[str, Any]) -> None:
    """Refuses flags that a mode does not take.

    Args:
      mode: the mode.
      given: values by the name of the flag. A flag with its default value counts as not given.

    Raises:
      UserError: with the flag, its value, the mode, and the modes that take the flag.
    """
    takers: dict[str, list[str]] = {}
    flags: dict[str, Flag] = {}
    for other in table().values():
        for flag in (*other.common_flags, *other.flags):
            takers.setdefault(flag.name, []).append(other.name)
            flags.setdefault(flag.name, flag)
    for name, value in given.items():
        if name in flags and value and value != flags[name].default and mode.name not in takers[name]:
            *most, last = takers[name]
            names = f'{", ".join(most)} or {last}' if most else last
            reason = f' {flags[name].elsewhere}' if flags[name].elsewhere else ''
            raise UserError(
                f'{flags[name].spelled(value)} is for --mode={names}; this is --mode={mode.name}.{reason} Leave it out.'
            )
    if given.get('topology') and not given.get('validate'):
        raise UserError(f'--topology={given["topology"]} compiles and runs nothing: give --validate as well.')
    if given.get('topology') and given.get('coordinator'):
        raise UserError(f'--coordinator={given["coordinator"]}: --topology compiles in one process. Leave it out.')


def run(
    gin_files: Sequence[str] = (),
    *,
    model_dir: str | None = None,
    mode: str = DEFAULT,
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    engine: Engine | None = None,
    command: Sequence[str] = (),
    **flags: Any,
) -> dict[str, Any] | None:
    """Does the same as the command line, for notebooks and scripts. A notebook shows the log and the progress.

    A training that is complete, asked for again with the same settings, returns its results at once.

    Args:
      gin_files: gin files, later ones override earlier ones. May be empty for a mode that trains nothing, which then
        reads the settings that the run in `model_dir` was trained with.
      model_dir: the run's directory; None for `runs/<name of the last gin file>`, or `runs/<folder>` if that file is
        called `<folder>/run.gin`.
      mode: name of the mode, as for `--mode`.
      gin_params: single bindings, such as `TRAIN_STEPS=200`.
      plugin_specs: modules or files with parts of your own, as for `--plugins`.
      engine: from `seg.engine.set_up`; None for `auto` in everything.
      command: the command line of this call; a training stores it in `run.json`.
      **flags: the mode's own flags, such as `fresh=True`, `checkpoint='best'`, `input=['photos']`: `seg_main --help`
        lists them by mode.

    Returns:
      For `train_and_eval` and `overfit` what `results.json` holds, for `eval` the scores, for `predict` the numbers of
      images and the reasons of those that failed, for `train` and `report` None.

    Raises:
      UserError: for every mistake in the settings or the data; the message says what to do.
    """
    with notebook.messages(), with_origin():
        return _call(mode, model_dir, gin_files, gin_params, plugin_specs, engine, flags, command=command).run()


def validate(
    gin_files: Sequence[str] = (),
    *,
    model_dir: str | None = None,
    mode: str = DEFAULT,
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    engine: Engine | None = None,
    **flags: Any,
) -> str:
    """Builds everything and refuses what `run` refuses before its first step; runs nothing and leaves no file.

    Arguments as for `run`.

    Returns:
      What was found, in a line; for `topology='v3-8'` and the like what each step costs, in a line each.

    Raises:
      UserError: for every mistake in the settings or the data.
    """
    with with_origin():
        return _call(mode, model_dir, gin_files, gin_params, plugin_specs, engine, flags, validate=True).validate()


@contextlib.contextmanager
def with_origin() -> Iterator[None]:
    """Context whose messages about the value of a setting say at their end where it is bound."""
    try:
        yield
    except UserError as error:
        if 'seg.config' in sys.modules:
            from seg import config

            place = config.origin(str(error))
            error.args = (f'{error} {place}' if place else str(error), *error.args[1:])
        raise


def step_costs(
    gin_files: Sequence[str],
    topology: str,
    *,
    mode: str = DEFAULT,
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
) -> list[StepCost]:
    """Compiles the steps of a training for TPUs that need not be there; runs nothing and reads no weights.

    Args:
      gin_files: as for `run`.
      topology: a slice of TPUs, such as 'v3-8'.
      mode: `train_and_eval` for the training and the evaluation step, or `train`.
      gin_params: as for `run`.
      plugin_specs: as for `run`.

    Raises:
      UserError: for every mistake in the settings.
    """
    return _call(mode, None, gin_files, gin_params, plugin_specs, None, {'topology': topology}, validate=True).costs()


def build(
    gin_files: Sequence[str] = (),
    *,
    model_dir: str | None = None,
    mode: str = DEFAULT,
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    engine: Engine | None = None,
    **flags: Any,
) -> Experiment:
    """Builds data, task, optimizer and executor as `run` would, and runs nothing.

    Arguments as for `run`.

    Raises:
      UserError: for mistakes in the settings or the data.
    """
    return _call(mode, model_dir, gin_files, gin_params, plugin_specs, engine, flags).build()


def load_parts(plugin_specs: Iterable[str] = ()) -> None:
    """Forgets earlier settings and loads everything that gin files may name: built-in parts, those of installed
    distributions, the user's own, and the settings of modes.

    Raises:
      UserError: if a plugin is not found or fails.
    """
    from seg import config, experiment, plugins, registry  # noqa: F401  `experiment` registers the settings of runs.

    config.clear()
    for mode in table().values():
        if issubclass(mode, ExperimentMode) and mode.settings_type and registry.entry_of(mode.settings_type) is None:
            config.configurable(mode.name)(mode.settings_type)
    plugins.load_builtins()
    plugins.load_entry_points()
    plugins.load(plugin_specs)


def _call(
    mode: str,
    model_dir: str | None,
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    plugin_specs: Sequence[str],
    engine: Engine | Callable[[], Engine] | None,
    flags: Mapping[str, Any],
    validate: bool = False,
    command: Sequence[str] = (),
) -> Any:
    """Checks the flags and returns an instance of the mode; `engine` may be a function that makes it."""
    from seg.engine import set_up

    chosen = find(mode)
    known = {flag.name for other in table().values() for flag in other.flags}
    if strange := sorted(set(flags) - known):
        raise TypeError(f'seg.modes: unknown argument {strange[0]!r}; flags of modes are {", ".join(sorted(known))}.')
    given = {'gin_file': gin_files, 'gin_param': gin_params, 'plugins': plugin_specs, 'validate': validate, **flags}
    check_flags(chosen, given)
    make = engine if callable(engine) else lambda: engine or set_up(topology=flags.get('topology') or '')
    return chosen(
        Call(
            model_dir=model_dir,
            flags={flag.name: flags.get(flag.name, flag.default) for flag in chosen.flags},
            engine=make,
            gin_files=gin_files,
            gin_params=gin_params,
            plugin_specs=plugin_specs,
            command=command,
        )
    )
