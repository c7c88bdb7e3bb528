"""The command line: `seg_main --gin_file=gin/deeplab_shapes.gin`. Flags and modes only."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from logging import Formatter

from absl import flags, logging

from seg.errors import UserError

_GIN_FILE = flags.DEFINE_multi_string('gin_file', [], 'Gin file with settings; may be given more than once.')
_GIN_PARAM = flags.DEFINE_multi_string('gin_param', [], 'A single binding over those of the files, such as TRAIN_STEPS=200.')
_MODEL_DIR = flags.DEFINE_string('model_dir', None, 'Directory of the run; the same one again goes on with it. Default: '
                                 'runs/<name of the gin file>.')
_MODE = flags.DEFINE_string('mode', 'train_and_eval', 'train_and_eval, train, eval, predict, or overfit (can the model '
                            'learn a few images by heart?).')
_FRESH = flags.DEFINE_bool('fresh', False, 'Start over: removes an earlier run from model_dir.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', 'latest', 'For eval and predict: latest, best, or a path.')
_PLUGINS = flags.DEFINE_list('plugins', [], 'Your own parts: modules (pkg.mod) or files (path/file.py), by commas.')
_STRATEGY = flags.DEFINE_string('strategy', 'auto', 'auto, one, mirrored, or mirrored:N for N devices.')
_PRECISION = flags.DEFINE_string('precision', 'auto', 'auto, float32 or bfloat16.')
_JIT = flags.DEFINE_string('jit', 'auto', 'XLA for the step: auto (on for GPUs), on, or off.')
_DETERMINISTIC = flags.DEFINE_bool('deterministic', False, 'The same numbers bit for bit in every run; somewhat slower.')
_LIST = flags.DEFINE_string('list', None, 'Lists the registered parts, of a kind or glob where one is given.')
_DESCRIBE = flags.DEFINE_string('describe', None, 'Describes a part and its parameters, such as @backbones.resnet50.')
_VALIDATE = flags.DEFINE_bool('validate', False, 'Builds everything, checks data and settings, runs nothing.')
_VERSION = flags.DEFINE_bool('version', False, 'Versions, devices and memory.')


def main(argv: Sequence[str]) -> int:
    """Runs the command line in this process.

    Args:
      argv: program name and flags.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 1 for a bug of ours, 130 when interrupted.
    """
    try:
        flags.FLAGS.unparse_flags()
        rest = flags.FLAGS(_with_bare_list(argv))
        if len(rest) > 1:
            raise UserError(f'{rest[1]!r}: every setting is a flag or a --gin_param; see seg_main --help.')
        logging.use_absl_handler()
        logging.get_absl_handler().setFormatter(Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
        logging.set_verbosity(logging.INFO)  # Parsing the flags has set it to their default.
        return _run()
    except flags.Error as error:
        return _tell(f'{error}\nseg_main --help lists the flags.')
    except UserError as error:
        return _tell(str(error))
    except KeyboardInterrupt:
        return _tell('Interrupted. The same command goes on from the last checkpoint.', 130)
    except Exception as error:
        return _report_bug(error)


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main(sys.argv))


def _run() -> int:
    with _quiet_start():
        import tensorflow

        tensorflow.config.list_physical_devices()
        from seg import experiment, registry
        from seg.executor import hardware as hardware_module
    if _VERSION.value:
        for key, value in hardware_module.describe().items():
            print(f'{key}: {", ".join(value) if isinstance(value, list) else value}')
        return 0
    if _LIST.value is not None or _DESCRIBE.value is not None:
        experiment.load_parts(_PLUGINS.value)
        print(registry.describe_text(_DESCRIBE.value) if _DESCRIBE.value else registry.list_text(_LIST.value))
        return 0
    hardware = hardware_module.set_up(_STRATEGY.value, _PRECISION.value, _JIT.value, _DETERMINISTIC.value)
    settings = dict(model_dir=_MODEL_DIR.value, mode=_MODE.value, gin_params=_GIN_PARAM.value,
                    plugin_specs=_PLUGINS.value, hardware=hardware)
    if _VALIDATE.value:
        print(experiment.validate(_GIN_FILE.value, **settings))
        return 0
    results = experiment.run(_GIN_FILE.value, **settings, fresh=_FRESH.value, checkpoint=_CHECKPOINT.value)
    if results is not None:
        print(json.dumps(results, indent=2))
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


def _report_bug(error: Exception) -> int:
    """Keeps the traceback of a bug where it can be sent from; tells in one line where that is."""
    text = traceback.format_exc()
    folder = _MODEL_DIR.value or '.'
    path = os.path.join(folder, 'error.log')
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, 'a', encoding='utf-8') as file:
            file.write(f'{" ".join(sys.argv)}\n{text}\n')
    except OSError:
        print(text, file=sys.stderr)
        path = 'above'
    return _tell(f'{type(error).__name__}: {error}\nThis is a bug of seg, not of your settings. Traceback: {path}', 1)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keeps TensorFlow's start-up lines away: it writes them to descriptor 2 before any log level counts."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
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
