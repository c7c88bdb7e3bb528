"""The command line: `seg_main --gin_file=gin/deeplab_shapes.gin`. Flags and modes only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from logging import Formatter

from absl import flags, logging

from seg.errors import UnsavedError, UserError
from seg.executor import stopping

# What the system refuses, wherever it does: a full or read-only disk, missing rights, too many open files.
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

# A set of our own: TensorFlow and absl keep some hundred in the global one.
_FLAGS = flags.FlagValues()
_own = {'flag_values': _FLAGS}

_GIN_FILE = flags.DEFINE_multi_string('gin_file', [], 'Gin file with settings; may be given more than once.', **_own)
_GIN_PARAM = flags.DEFINE_multi_string(
    'gin_param', [], 'A single binding over those of the files, such as TRAIN_STEPS=200; may be given often.', **_own
)
_MODE = flags.DEFINE_string(
    'mode',
    'train_and_eval',
    'train_and_eval, train, eval, predict, overfit (can the model learn a few images by heart?), or report (one HTML '
    'page of the run in model_dir, finished or not).',
    **_own,
)
_MODEL_DIR = flags.DEFINE_string(
    'model_dir',
    None,
    'Directory of the run; the same one again goes on with it. Default: runs/<name of the gin file>.',
    **_own,
)
_FRESH = flags.DEFINE_bool('fresh', False, 'Start over: removes an earlier run from model_dir.', **_own)
_CHECKPOINT = flags.DEFINE_string('checkpoint', 'latest', 'For eval and predict: latest, best, or a path.', **_own)
_INPUT = flags.DEFINE_multi_string(
    'input',
    [],
    'For predict: pictures; a file, a folder, or a glob in quotes; several by commas or by several --input. Default: '
    'the evaluation data.',
    **_own,
)
_OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'For predict: folder to write to. For report: HTML file to write. Default: in model_dir, report.html for a report.',
    **_own,
)
_PROBABILITIES = flags.DEFINE_bool(
    'probabilities', False, 'For predict: also writes the probabilities of all classes, as .npz files.', **_own
)
_PLUGINS = flags.DEFINE_list(
    'plugins', [], 'Your own parts: modules (pkg.mod) or files (path/file.py), by commas.', **_own
)
_STRATEGY = flags.DEFINE_string('strategy', 'auto', 'auto, one, mirrored, or mirrored:N for N devices.', **_own)
_PRECISION = flags.DEFINE_string('precision', 'auto', 'auto, float32 or bfloat16.', **_own)
_JIT = flags.DEFINE_string('jit', 'auto', 'XLA for the step: auto (on for GPUs), on, or off.', **_own)
_DETERMINISTIC = flags.DEFINE_bool(
    'deterministic', False, 'The same numbers bit for bit in every run; somewhat slower.', **_own
)
_VALIDATE = flags.DEFINE_bool('validate', False, 'Builds everything, checks data and settings, runs nothing.', **_own)
_LIST = flags.DEFINE_string('list', None, 'Lists the registered parts, of a kind or glob where one is given.', **_own)
_DESCRIBE = flags.DEFINE_string(
    'describe', None, 'Describes a part and its parameters, such as @backbones.resnet50.', **_own
)
_VERSION = flags.DEFINE_bool('version', False, 'Versions, devices and memory.', **_own)
_HELP = flags.DEFINE_bool('help', False, 'This text.', short_name='h', **_own)


def main(argv: Sequence[str]) -> int:
    """Runs the command line in this process.

    Args:
      argv: program name and flags.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 1 for a bug of ours or where some pictures could not be
      predicted, 130 when interrupted by Ctrl-C. After SIGTERM 0 for a training, which goes on when it is started again,
      and 143 otherwise.
    """
    try:
        for name in _FLAGS:
            _FLAGS[name].unparse()  # An earlier call's, where one process makes several.
        rest = _FLAGS(_with_bare_list(argv))
        if len(rest) > 1:
            hint = '; a glob for --input wants quotes, lest the shell expands it' if _INPUT.value else ''
            raise UserError(f'{rest[1]!r}: every setting is a flag or a --gin_param{hint}; see seg_main --help.')
        if _HELP.value:
            print(_help_text())
            return 0
        flags.FLAGS.mark_as_parsed()  # absl's logging has its settings there.
        logging.use_absl_handler()
        logging.get_absl_handler().setFormatter(Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
        logging.set_verbosity(logging.INFO)
        trains = _MODE.value not in ('eval', 'predict', 'report')
        with stopping.listening(command=True, trains=trains) as signals:
            return _told_when_stopped(argv, signals)
    except flags.Error as error:
        return _tell(f'{error}\nseg_main --help lists the flags.')
    except UnsavedError as error:
        print(json.dumps(error.results, indent=2))
        return _tell(str(error))
    except UserError as error:
        return _tell(str(error))
    except KeyboardInterrupt:
        return _tell('Interrupted.', 130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OURS:
            return _tell(
                f'{error.filename or "a file"}: {error.strerror}. Mend that, then start the same command again.'
            )
        return _report_bug(argv, error)


def _told_when_stopped(argv: Sequence[str], signals: stopping.Stopping) -> int:
    """What the mode does; a signal that ends it is told, with what is on disk."""
    try:
        return _report() if _MODE.value == 'report' else _run(argv)
    except SystemExit as ended:
        return _tell(f'Asked to terminate. {signals.state()}', int(ended.code or 0))
    except KeyboardInterrupt:
        return _tell(f'Interrupted. {signals.state()}', 130)


def run() -> None:
    """Entry point of the console script.

    Everything is on disk when `main` returns. TensorFlow's own way out may wait a minute for its input threads, and on
    several logical CPU devices for ever, so it is not taken.
    """
    status = main(sys.argv)
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _tell(f'cannot write to standard output: {error.strerror}.')
    sys.stderr.flush()
    os._exit(status)


def _report() -> int:
    """`--mode=report`, without TensorFlow, whose start takes longer than a report."""
    from seg.report import page

    others = [name for name in _FLAGS if _FLAGS[name].present and name not in ('mode', 'model_dir', 'output')]
    page.run_mode(_MODEL_DIR.value, _OUTPUT.value, others)
    return 0


def _run(argv: Sequence[str]) -> int:
    with _quiet_start():
        from seg import engine as engines

        engines.start()
        from seg import experiment, plugins
        from seg.prediction import pipeline
    if _VERSION.value:
        for key, value in engines.describe().items():
            print(f'{key}: {", ".join(value) if isinstance(value, list) else value}')
        return 0
    if _LIST.value is not None or _DESCRIBE.value is not None:
        experiment.load_parts(_PLUGINS.value)
        print(plugins.describe_text(_DESCRIBE.value) if _DESCRIBE.value else plugins.list_text(_LIST.value))
        return 0
    engine = engines.set_up(_STRATEGY.value, _PRECISION.value, _JIT.value, _DETERMINISTIC.value)
    settings = dict(
        model_dir=_MODEL_DIR.value,
        mode=_MODE.value,
        gin_params=_GIN_PARAM.value,
        plugin_specs=_PLUGINS.value,
        input=_INPUT.value,
        output=_OUTPUT.value,
        probabilities=_PROBABILITIES.value,
        fresh=_FRESH.value,
        checkpoint=_CHECKPOINT.value,
        engine=engine,
    )
    if _VALIDATE.value:
        print(experiment.validate(_GIN_FILE.value, **settings))
        return 0
    results = experiment.run(_GIN_FILE.value, **settings, command=['seg_main', *argv[1:]])
    if results is not None:
        print(json.dumps(results, indent=2))
    if _MODE.value == 'predict' and results['failed']:
        return _tell(pipeline.summary(results), 1)
    return 0


def _with_bare_list(argv: Sequence[str]) -> list[str]:
    """`--list` alone lists everything."""
    return [
        '--list=' if arg in ('--list', '-list') and (i + 1 == len(argv) or argv[i + 1].startswith('-')) else arg
        for i, arg in enumerate(argv)
    ]


def _tell(message: str, status: int = 2) -> int:
    print(f'seg_main: {message}', file=sys.stderr)
    return status


def _help_text() -> str:
    """Usage and the flags, in the order of their definition."""
    lines = [
        'seg_main --gin_file=FILE [flags]',
        '',
        'Trains, evaluates and predicts with what a gin file describes. To begin with, without any data:',
        '',
        '  seg_main --gin_file=gin/deeplab_shapes.gin',
        '',
        'Flags:',
    ]
    for flag in _FLAGS.get_flags_for_module(__name__):
        value = '' if flag.boolean else f'={flag.default}' if flag.default else '=...'
        lines.append(f'  --{flag.name}{value}')
        lines.append(flags.text_wrap(flag.help.partition(';\n')[0], 100, indent=' ' * 6))
    return '\n'.join(lines)


def _report_bug(argv: Sequence[str], error: Exception) -> int:
    """Keeps the traceback of a bug where it can be sent from; tells in one line where that is."""
    text = traceback.format_exc()
    place = 'above'
    try:
        from seg import experiment
        from seg.run.folder import RunFolder

        if not (_GIN_FILE.value or _MODEL_DIR.value):
            raise FileNotFoundError('no run, hence no model_dir')
        folder = experiment.directory(_GIN_FILE.value, _MODEL_DIR.value, _MODE.value)
        os.makedirs(folder, exist_ok=True)
        log = RunFolder(folder).error_log
        with open(log, 'a', encoding='utf-8', errors='backslashreplace') as file:
            file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {shlex.join(argv)}\n{text}\n')
        place = log
    except (OSError, ImportError):
        print(text, file=sys.stderr)
    summary = f'{type(error).__name__}: {error}'.splitlines()[0]
    return _tell(f'{summary}\nThis is a bug of seg, or of a plugin, not of your settings. Traceback: {place}', 1)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keeps the start-up lines of TensorFlow away: it writes them to descriptor 2 before any log level counts."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    sys.stderr.flush()
    try:
        kept = tempfile.TemporaryFile()
    except OSError:  # No room for temporary files: then the lines are shown.
        yield
        return
    with kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


if __name__ == '__main__':
    run()
