"""The command line: `seg_main --gin_file=gin/deeplab_shapes.gin`. Parses flags and calls a mode."""

from __future__ import annotations

import errno
import functools
import json
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from logging import Formatter
from typing import TYPE_CHECKING

from absl import flags, logging

from seg import engine as engines
from seg import modes
from seg.errors import UnsavedError, UserError, shown_path
from seg.executor import stopping
from seg.modes.base import SETTINGS, ExperimentMode, Flag, Mode
from seg.run import train_log
from seg.run.folder import RunFolder

if TYPE_CHECKING:
    from seg.engine.base import Engine

# Errors of the system, not of seg: a full or read-only disk, missing rights, too many open files.
_NOT_OURS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
}

# Flags common to all modes. Those of `SETTINGS` are for all modes that read settings.
_EVERY_MODE = (
    Flag('mode', flags.DEFINE_string, modes.DEFAULT, 'The work to do; see below.'),
    Flag(
        'model_dir',
        flags.DEFINE_string,
        None,
        'Directory of the run; a run in it is continued. Default: runs/<name of the gin file>.',
    ),
)
_NO_MODE = (
    Flag(
        'list',
        flags.DEFINE_string,
        None,
        'Lists the registered parts and the settings of runs, and with --gin_file its macros; a kind, settings, macros '
        'or a glob selects some.',
    ),
    Flag('describe', flags.DEFINE_string, None, 'Describes a part and its parameters, such as @backbones.resnet50.'),
    Flag('version', flags.DEFINE_bool, False, 'Versions, devices and memory.'),
    Flag('help', functools.partial(flags.DEFINE_bool, short_name='h'), False, 'This text.'),
)


def parser() -> flags.FlagValues:
    """Returns the flags of the command line, including those of all modes. A call of the result parses an argv.

    The set is separate, because TensorFlow and absl define about a hundred flags in the global one.
    """
    values = flags.FlagValues()
    own = [flag for mode in modes.table().values() for flag in mode.flags]
    for flag in (*_EVERY_MODE, *SETTINGS, *own, *_NO_MODE):
        if flag.name not in values:  # Several modes may share one.
            flag.define(flag.name, flag.default, flag.help, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the command line in this process.

    Args:
      argv: program name and flags.

    Returns:
      The exit status: 0; 2 for a mistake of the user; 75 if another process of the run was lost; 1 for a bug in seg,
      or if some images could not be predicted; 130 after Ctrl-C. After SIGTERM 0 for a training, which continues when
      it is started again, and 143 for other modes.
    """
    with train_log.recording():
        return _main(argv)


def _main(argv: Sequence[str]) -> int:
    values = parser()
    try:
        rest = values(_with_bare_list(argv))
        if len(rest) > 1:
            hint = '; put a glob for --input in quotes, or the shell expands it' if values.input else ''
            raise UserError(f'{rest[1]!r}: every setting is a flag or a --gin_param{hint}; see seg_main --help.')
        if values.help:
            print(_help_text())
            return 0
        flags.FLAGS.mark_as_parsed()  # absl's logging reads its settings from these flags.
        logging.use_absl_handler()
        logging.get_absl_handler().setFormatter(Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
        logging.set_verbosity(logging.INFO)
        if values.version or values.list is not None or values.describe is not None:
            return _inform(values)
        mode = modes.find(values.mode)
        modes.check_flags(mode, values.flag_values_dict())
        with stopping.listening(command=True, trains=mode.trains) as signals:
            return _run_until_stopped(argv, values, mode, signals)
    except flags.Error as error:
        return _error(f'{error}\nseg_main --help lists the flags.')
    except UnsavedError as error:
        _print(json.dumps(error.results, indent=2))
        return _error(str(error))
    except UserError as error:
        return _error(str(error), error.status)
    except KeyboardInterrupt:
        return _error('Interrupted.', 130)
    except BrokenPipeError:  # The reader of a pipe, such as `head`, has closed it.
        sys.stdout = open(os.devnull, 'w', encoding='utf-8')
        return 128 + signal.SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OURS:
            return _error(
                f'{error.filename or "a file"}: {error.strerror}. Correct this, then start the same command again.'
            )
        return _report_bug(argv, values, error)


def _run_until_stopped(
    argv: Sequence[str], values: flags.FlagValues, mode: type[Mode], signals: stopping.Stopping
) -> int:
    """Runs the mode. After a signal, the message says what is on disk."""
    try:
        status = _run(argv, values, mode)
    except SystemExit as ended:
        status = _error(f'Asked to terminate. {signals.state()}', int(ended.code or 0))
    except KeyboardInterrupt:
        status = _error(f'Interrupted. {signals.state()}', 130)
    engines.leave(failed=False)
    return status


def run() -> None:
    """Entry point of the console script.

    Everything is on disk when `main` returns. TensorFlow's own exit may wait a minute for its input threads, and
    forever on several logical CPU devices, so the process ends without it.
    """
    status = main(sys.argv)
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _error(f'cannot write to standard output: {error.strerror}.')
    sys.stderr.flush()
    if status:
        engines.leave(failed=True)
    os._exit(status)


def _inform(values: flags.FlagValues) -> int:
    """Prints the output of `--version`, `--list` and `--describe`."""
    macros = _macros(values) if values.list in ('', 'macros') else ''
    if values.list == 'macros':
        print(macros)
        return 0
    engines.start(values.engine)
    from seg import plugins

    if values.version:
        for key, value in engines.describe().items():
            print(f'{key}: {", ".join(value) if isinstance(value, list) else value}')
        return 0
    modes.load_parts(values.plugins)
    text = plugins.describe_text(values.describe) if values.describe else plugins.list_text(values.list)
    print(f'{text}\n\n{macros}' if macros else text)
    return 0


def _macros(values: flags.FlagValues) -> str:
    """The macros of the gin files with values and places, for `--list`; empty without gin files.

    Raises:
      UserError: for a mistake in a gin file, or if `--list=macros` has none.
    """
    if not values.gin_file:
        if values.list == 'macros':
            raise UserError('--list=macros: give the --gin_file whose macros are listed.')
        return ''

    from seg import gin_statements

    found = gin_statements.macros_of(values.gin_file, values.gin_param)
    lines = [(f'{name} = {literal}', place) for name, (literal, place) in found.items()]
    width = max((len(line) for line, _ in lines), default=0)
    return '\n'.join(['macros', *(f'  {line:<{width}}  {place}' for line, place in lines)])


def _run(argv: Sequence[str], values: flags.FlagValues, mode: type[Mode]) -> int:
    settings = {
        'model_dir': values.model_dir,
        'mode': mode.name,
        **{flag.name: values[flag.name].value for flag in mode.flags},
    }
    if issubclass(mode, ExperimentMode):
        wanted = 'jax' if values.coordinator and values.engine == 'auto' else values.engine
        engine = engines.choose(values.strategy, values.precision, values.jit, wanted, values.topology)
        settings |= {'gin_files': values.gin_file, 'gin_params': values.gin_param}
        settings |= {'plugin_specs': values.plugins, 'engine': lambda: _start(values, engine)}
        if values.validate:
            print(modes.validate(**settings))
            return 0
    results = modes.run(**settings, command=['seg_main', *argv[1:]])
    if results is not None:
        _print(mode.printed(results))
    failure = mode.failure(results)
    return _error(failure, 1) if failure else 0


def _start(values: flags.FlagValues, engine: str) -> Engine:
    """Makes the engine of a mode, which takes seconds; `engine` is its name."""
    logging.info('--mode=%s: starting the engine %s.', values.mode, engine)
    if not values.topology:
        engines.join(values.coordinator, values.num_processes, values.process_id, values.engine)
    return engines.set_up(
        values.strategy,
        values.precision,
        values.jit,
        values.deterministic,
        engine=values.engine,
        topology=values.topology,
    )


def _with_bare_list(argv: Sequence[str]) -> list[str]:
    """Makes `--list` without a value list everything."""
    return [
        '--list=' if arg in ('--list', '-list') and (i + 1 == len(argv) or argv[i + 1].startswith('-')) else arg
        for i, arg in enumerate(argv)
    ]


def _print(text: str) -> None:
    """Prints results."""
    train_log.add(text)
    print(text)


def _error(message: str, status: int = 2) -> int:
    train_log.add(f'seg_main: {message}')
    print(f'seg_main: {message}', file=sys.stderr)
    return status


def _help_text() -> str:
    """Returns usage and flags: those of all modes first, then mode by mode."""
    lines = [
        'seg_main --gin_file=FILE [--mode=MODE] [flags]',
        '',
        'Trains, evaluates and predicts with the settings of a gin file. A first run, which needs no data:',
        '',
        '  seg_main --gin_file=gin/deeplab_shapes.gin',
        '',
        'Flags of every mode:',
        *map(_help_of_flag, _EVERY_MODE),
        '',
    ]
    table = modes.table().values()
    without = ', '.join(mode.name for mode in table if mode.common_flags != SETTINGS)
    lines += [f'Flags of every mode but {without}:', *map(_help_of_flag, SETTINGS)]
    for mode in table:
        lines += ['', flags.text_wrap(f'--mode={mode.name}: {mode.summary()}', 100), *map(_help_of_flag, mode.flags)]
    return '\n'.join([*lines, '', 'Flags that run no mode:', *map(_help_of_flag, _NO_MODE)])


def _help_of_flag(flag: Flag) -> str:
    value = '' if flag.default is False else f'={flag.default}' if flag.default else '=...'
    return f'  --{flag.name}{value}\n{flags.text_wrap(flag.help, 100, indent=" " * 6)}'


def _report_bug(argv: Sequence[str], values: flags.FlagValues, error: Exception) -> int:
    """Writes the traceback of a bug to the run's directory, and prints its path."""
    text = traceback.format_exc()
    place = 'above'
    try:
        if not (values.gin_file or values.model_dir):
            raise FileNotFoundError('no run, so no model_dir')
        folder = modes.find(values.mode).directory(values.gin_file, values.model_dir)
        os.makedirs(folder, exist_ok=True)
        log = RunFolder(folder).error_log
        with open(log, 'a', encoding='utf-8', errors='backslashreplace') as file:
            file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {shlex.join(argv)}\n{text}\n')
        place = log
    except (OSError, UserError, flags.Error):
        print(text, file=sys.stderr)
    summary = f'{type(error).__name__}: {error}'.splitlines()[0]
    plugin = _place_in_plugin(error)
    blamed = f'It comes from the plugin at {plugin}.' if plugin else 'This is a bug of seg, not of your settings.'
    return _error(f'{summary}\n{blamed} Traceback: {place}', 1)


def _place_in_plugin(error: Exception) -> str:
    """The innermost line in a plugin, or in its package, that an exception passed through; empty if there is none."""
    if 'seg.registry' not in sys.modules:  # No plugin is loaded without it.
        return ''
    from seg import registry

    entries = [entry for entry in registry.ENTRIES.values() if not entry.built_in]
    packages = {entry.builder.__module__.partition('.')[0] for entry in entries}
    files = {entry.file for entry in entries} | {
        getattr(module, '__file__', None)
        for name, module in list(sys.modules.items())
        if name.partition('.')[0] in packages
    }
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f'{shown_path(frames[-1].filename)}:{frames[-1].lineno}' if frames else ''


if __name__ == '__main__':
    run()
