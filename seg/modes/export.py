"""`--mode=export`."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from seg.errors import UserError, shown
from seg.modes.base import CHECKPOINT, WEIGHTS, Call, ExperimentMode, Flag

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.executor.checkpoints import Checkpoint
    from seg.experiment import Needs
    from seg.export.exporting import Request


class Export(ExperimentMode):
    """Writes a run's model for other runtimes, after a check that it computes the same there."""

    name = 'export'
    aliases = ('save', 'freeze', 'deploy', 'onnx', 'tflite')
    flags = (
        CHECKPOINT,
        Flag(
            'format',
            flags.DEFINE_list,
            [],
            'saved_model, onnx, tflite or openvino; several are separated by commas.',
        ),
        Flag('output', flags.DEFINE_string, None, 'Folder to write to. Default: export in model_dir.'),
        Flag(
            'canvas',
            flags.DEFINE_list,
            [],
            'Height,width of the images of the exported model. Default: the canvas of --mode=predict.',
        ),
        Flag(
            'batch',
            flags.DEFINE_integer,
            None,
            'Images of a call. Default: any number; tflite has a fixed one, by default 1.',
        ),
        WEIGHTS,
        Flag('quantize', flags.DEFINE_string, 'none', 'none (float32), float16, dynamic or int8.'),
        Flag(
            'probabilities',
            flags.DEFINE_bool,
            False,
            'Also returns the probabilities of all classes. Images larger than the canvas then get finer borders.',
        ),
        Flag(
            'raw_heads',
            flags.DEFINE_bool,
            False,
            'Mask R-CNN: writes three networks, and the selection and suppression of boxes as a file for numpy.',
        ),
        Flag(
            'tolerance',
            flags.DEFINE_float,
            None,
            'Largest share of pixels or detections that may differ, 0.001; or, for a quantized model, the largest loss '
            'of the score, 0.01.',
        ),
        Flag('force', flags.DEFINE_bool, False, 'Writes the files even if the check fails; they say so.'),
        Flag('images', flags.DEFINE_integer, 16, 'Images of the evaluation data that the check runs.'),
    )
    needs_eval_data = True

    def __init__(self, call: Call):
        """Reads the flags and loads the settings.

        Raises:
          UserError: for a mistake in flags or settings, or a package that is not installed.
        """
        self._formats, self._canvas = _formats(call.flags['format']), _canvas(call.flags['canvas'])
        _check(call.flags)
        super().__init__(call)
        self.engine = one_device_in_float32(self.engine, f'--mode={self.name}')

    def needs(self) -> Needs:
        return dataclasses.replace(super().needs(), train_data=self.call.flags['quantize'] == 'int8')

    def check_experiment(self) -> None:
        from seg.export import exporting

        exporting.check_request(self._request(), self.experiment.task)

    def check_weights(self) -> None:
        self._load_model()

    def _load_model(self) -> tuple[Checkpoint, bool]:
        return self.experiment.executor.load_model(self.call.flags['checkpoint'], self.call.flags['weights'])

    def execute(self) -> dict[str, Any]:
        from seg.export import exporting

        request = self._request()
        results = exporting.export(self.experiment, request, *self._load_model())
        if results['written']:
            logging.info('Exported: %s', request.output)
        return results

    def _request(self) -> Request:
        from seg.export.exporting import Request

        given, experiment = self.call.flags, self.experiment
        return Request(
            formats=self._formats,
            output=os.path.expanduser(given['output'] or self.folder.export),
            canvas=self._canvas or tuple(experiment.task.canvas(experiment.info.max_size)),
            **{
                key: given[key]
                for key in ('quantize', 'batch', 'probabilities', 'tolerance', 'force', 'images', 'raw_heads')
            },
        )

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        if not results or results['written']:
            return None
        faults = '; '.join(f'{name}: {fault}' for name, fault in results['faults'].items())
        return f'The check failed, so nothing was written. {faults}; or --tolerance, or --force.'


def one_device_in_float32(engine: Engine, flag: str) -> Engine:
    """The engine that exports: files compute in float32, whatever the run was trained in, and TensorFlow traces them.

    Raises:
      UserError: with the flag, if the engine has another framework or several devices.
    """
    import keras

    from seg.engine import precision

    if keras.backend.backend() != 'tensorflow':
        raise UserError(f'{flag}: give --engine=tensorflow; it reads the checkpoints of all engines.')
    if engine.num_devices != 1:
        raise UserError(f'{flag} runs on one device, not on {engine.num_devices}: give --strategy=one.')
    if engine.precision == 'float32':
        return engine
    precision.set_precision('float32')
    return dataclasses.replace(engine, precision='float32')


def _formats(given: Any) -> tuple[str, ...]:
    """The formats of `--format`, each once.

    Raises:
      UserError: for none, an unknown one, or one whose packages are not installed.
    """
    from seg.export.description import FORMATS

    names = tuple(dict.fromkeys(name.strip() for name in (given.split(',') if isinstance(given, str) else given)))
    expected = f'expected one or more of {", ".join(FORMATS)}, separated by commas'
    if not names:
        raise UserError(f'--mode=export: no --format; {expected}.')
    for name in names:
        if name not in FORMATS:
            raise UserError(f'--format={name}: {expected}.')
    from seg.export import formats

    for name in names:
        formats.FORMATS[name].check_installed(f'--format={name}')
    return names


def _canvas(given: Any) -> tuple[int, int] | None:
    """The size of `--canvas`; None if it is not given.

    Raises:
      UserError: if it is no pair of numbers.
    """
    if not given:
        return None
    texts = [str(side).strip() for side in (given.split(',') if isinstance(given, str) else given)]
    if len(texts) != 2 or not all(text.isdecimal() and len(text) < 7 and int(text) > 0 for text in texts):
        raise UserError(f'--canvas={",".join(texts)}: expected height,width in pixels, such as --canvas=512,512.')
    return int(texts[0]), int(texts[1])


def _check(given: Any) -> None:
    """Refuses values of the other flags that have no meaning.

    Raises:
      UserError: with the flag and its value.
    """
    from seg.export.description import QUANTIZATIONS

    for name, valid, expected in (
        ('quantize', lambda value: value in QUANTIZATIONS, f'one of {", ".join(QUANTIZATIONS)}'),
        ('weights', lambda value: value in ('', 'ema', 'raw'), 'ema or raw'),
        ('batch', lambda value: value is None or value > 0, 'a number of images from 1 on'),
        ('images', lambda value: value > 0, 'a number of images from 1 on'),
        ('tolerance', lambda value: value is None or 0 <= value <= 1, 'a number from 0 to 1'),
    ):
        if not valid(given[name]):
            raise UserError(f'--{name}={shown(given[name])}: expected {expected}.')


MODE = Export
