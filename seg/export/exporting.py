"""`--mode=export`: makes the files in a temporary folder, checks them, and moves them into place together."""

from __future__ import annotations

import contextlib
import dataclasses
import logging as python_logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

import seg
from seg import files, log_level
from seg.errors import UserError, reason
from seg.executor.checkpoints import Checkpoint
from seg.export import check, columns, formats, heads, image_bytes, network
from seg.export.description import Description
from seg.export.formats import Format, Images
from seg.export.model_file import PATTERN
from seg.export.tracing import Traced, images_on
from seg.prediction import canvas as canvases
from seg.prediction import data_set
from seg.prediction.reading import ImageError
from seg.tasks.instance import Instance
from seg.tasks.semantic import Semantic

INDEX = 'export.json'
_CALIBRATION = 64  # Training images from which ranges of activations are taken.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The settings of an export.

    Attributes:
      formats: names of formats.
      output: the folder to write to.
      quantize: the quantization.
      canvas: (height, width) of all images.
      batch: images of a call; None for any number, or 1 where the format has a fixed number.
      probabilities: whether a semantic model returns the probability of every class.
      tolerance: see `check.Check.fault`.
      force: whether files that fail the check are written nevertheless.
      images: number of images of the evaluation data that the check runs.
      raw_heads: whether numpy does the post-processing, see `heads`.
    """

    formats: Sequence[str]
    output: str
    quantize: str
    canvas: tuple[int, int]
    batch: int | None
    probabilities: bool
    tolerance: float | None
    force: bool
    images: int
    raw_heads: bool

    def format(self, name: str) -> Format:
        return (heads.FORMATS if self.raw_heads else formats.FORMATS)[name]


def kind_of(task) -> str:
    """'semantic' or 'instance'.

    Raises:
      UserError: for a task of another kind, whose outputs have no definition in exported files.
    """
    for kind, known in (('semantic', Semantic), ('instance', Instance)):
        if isinstance(task, known):
            return kind
    own = f'{type(task).__module__}.{type(task).__name__}'
    raise UserError(
        f'experiment.task: {own} cannot be exported; expected tasks.semantic, tasks.instance or a subclass.'
    )


def check_request(request: Request, task) -> None:
    """Refuses settings that no format or task has.

    Raises:
      UserError: with the flag, its value and what is possible.
    """
    kind, stride = kind_of(task), task.data_limits().stride
    if request.raw_heads:
        heads.check_model(task)
    for name in request.formats:
        offered = request.format(name).quantize[kind]
        if request.quantize not in offered:
            raise UserError(
                f'--quantize={request.quantize}: --format={name} offers {", ".join(offered)} for a model of '
                f'the task {kind}. Choose one of these, or another format.'
            )
    if min(request.canvas) < stride:
        raise UserError(f'--canvas={request.canvas[0]},{request.canvas[1]}: each side is at least {stride} pixels.')
    if os.path.lexists(request.output) and not os.path.isdir(request.output):
        raise UserError(f'--output={request.output}: expected a folder, and something else is there. Give another one.')
    if set(os.path.abspath(request.output)) & set(PATTERN):
        raise UserError(
            f'--output={request.output}: TensorFlow takes {" ".join(PATTERN)} in a path for a pattern. Give another '
            'folder.'
        )
    taken = [request.format(name).entry for name in request.formats]
    there = [entry for entry in taken if os.path.lexists(os.path.join(request.output, entry))]
    if there and not os.path.exists(os.path.join(request.output, INDEX)):
        raise UserError(
            f'--output={request.output}: it holds {there[0]}, which no export has written: {INDEX} is missing. Give '
            'another folder, or remove the file.'
        )


def export(experiment, request: Request, found: Checkpoint, averages: bool) -> dict[str, Any]:
    """Exports a run.

    Args:
      experiment: with evaluation data, and for int8 with training data. The model has the weights of `found`.
      request: the settings.
      found: the checkpoint.
      averages: whether the weights are its moving averages.

    Returns:
      `written` (bool), `output`, `faults` (by format), and `files`: the figures of the check by the files' paths.

    Raises:
      UserError: if a file cannot be made, cannot run, or cannot be written.
    """
    task, kind, info = experiment.task, kind_of(experiment.task), experiment.info
    canvas = request.canvas
    logging.info('Exporting the weights of step %d (%s), canvas %d x %d.', found.step, found.path, *canvas)
    source = task.inputs.evaluation(experiment.eval_data, 1, canvas)
    predictor = experiment.executor.engine.predictor(task, found.path)
    best = experiment.run_config.best_metric
    checking = check.Check(task, kind, predictor, check.examples(source, request.images), best)
    fills = task.data_limits().eval_size is not None
    images = calibration(experiment.train_data, canvas, fills) if request.quantize == 'int8' else ()
    with _scratch(request.output) as scratch, files.writing(request.output):
        made = os.path.join(scratch, 'made')
        os.makedirs(made)
        traced = _traced(task, request, fills, scratch)
        described: dict[str, Description] = {}
        faults: dict[str, str] = {}
        for name in request.formats:
            chosen = request.format(name)
            batch = request.batch or (1 if chosen.fixed_batch else None)
            description = Description(
                task=kind,
                format=name,
                quantize=request.quantize,
                canvas=canvas,
                batch=batch,
                fills_canvas=fills,
                class_names=info.class_names,
                original_ids=info.original_ids,
                colors=info.colors,
                ignore_label=info.ignore_label,
                data=info.name,
                weights='ema' if averages else 'raw',
                step=found.step,
                seg=seg.__version__,
                inputs=network.INPUTS,
                outputs=network.meanings(traced.outputs(batch), kind),
                heads=traced.describe(batch) if request.raw_heads else {},
            )
            path = os.path.join(made, chosen.path)
            logging.info('%s: converting.', name)
            with _converting(name, request.quantize):
                chosen.write(traced, path, batch, request.quantize, images)
                chosen.describe(path, description)
            logging.info('%s: running it on %d images.', name, request.images)
            try:
                figures = checking.figures(path)
            except UserError as error:
                raise UserError(
                    f'--format={name}, --quantize={request.quantize}: {error} Nothing was written.'
                ) from None
            figures['bytes'] = formats.size(path)
            if fault := checking.fault(figures, request.quantize, request.tolerance):
                faults[name] = fault
            description = dataclasses.replace(description, check=figures, forced=fault is not None)
            with _converting(name, request.quantize):
                chosen.describe(path, description)
            described[chosen.path] = description
        logging.info('\n%s', table(described))
        written = not faults or request.force
        if written:
            _install(made, request.output, described)
    return {
        'written': written,
        'output': request.output,
        'faults': faults,
        'files': {path: description.check for path, description in described.items()},
    }


def _traced(task, request: Request, fills: bool, scratch: str) -> Traced | heads.Heads:
    """What the formats write."""
    canvas = request.canvas
    if request.raw_heads:
        return heads.Heads(task.model, canvas, scratch)
    kind = kind_of(task)
    variables = [variable for part in task.checkpoint_items.values() for variable in part.variables]
    function = network.network(task, kind, canvas, request.probabilities)
    whole = network.network(task, kind, canvas, probabilities=True)
    of_bytes = image_bytes.of_bytes(whole, kind, canvas, fills)
    return Traced(function, variables, images_on(canvas), scratch, of_bytes)


@contextlib.contextmanager
def _converting(name: str, quantize: str) -> Iterator[None]:
    """Hides the logs of a format's converter; its errors become messages."""
    try:
        with _quiet():
            yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(
            f'--format={name}, --quantize={quantize}: the converter failed: {reason(error)}. Nothing was written. If '
            'the disk has room, a layer of your own may have an operation that the format lacks: try '
            '--format=saved_model, which has all.'
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the converters' logs, and removes the log handlers that one of them installs."""
    root = python_logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.setLevel(python_logging.ERROR)
    python_logging.getLogger('tf2onnx').setLevel(python_logging.ERROR)
    try:
        with log_level.at(logging.WARNING), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def calibration(dataset, canvas: tuple[int, int], fills: bool) -> Images:
    """Images of the training data, evenly spread, as the exported file receives them.

    Raises:
      UserError: if none can be read.
    """
    last = (dataset.info.num_examples or _CALIBRATION) - 1  # Of an endless data set, the first ones.
    positions = np.unique(np.linspace(0, last, _CALIBRATION).astype(int)).tolist()
    found = []
    for source in data_set.images(dataset, positions):
        with contextlib.suppress(ImageError):
            pixels = canvases.OneCanvas(source.load(), canvas, (), fills=fills).window(0)
            placed = canvases.batch([pixels], 1, canvas, 'uint8')
            found.append((placed['image'], placed['size']))
    if not found:
        raise UserError(f'--quantize=int8: no image of {dataset.info.name} can be read, and the ranges come from them.')
    return found


def table(described: Mapping[str, Description]) -> str:
    """The figures of the check, a line for each file."""
    lines = [('file', 'quantize', 'differing', 'agreeing', 'largest differences', 'score', 'MB', 'ms per image')]
    for path, description in described.items():
        figures = description.check
        before, after = (
            'none' if figures[key] is None else f'{figures[key]:.4f}' for key in ('score_before', 'score_after')
        )
        lines.append(
            (
                path,
                description.quantize,
                f'{figures["differing"]:.4%}',
                f'{figures["agreeing"]:.4%}',
                ', '.join(f'{name} {value:.2g}' for name, value in figures['largest'].items()),
                f'{figures["score"]} {before} -> {after}',
                f'{figures["bytes"] / 1e6:.2f}',
                f'{figures["milliseconds_before"]:.1f} -> {figures["milliseconds_after"]:.1f}',
            )
        )
    return columns.aligned(lines)


@contextlib.contextmanager
def _scratch(output: str) -> Iterator[str]:
    """A temporary folder on the disk of the output; those of killed processes are removed.

    It is within the output if that exists, which may be a link or a disk of its own, and beside it otherwise.

    Raises:
      UserError: if it cannot be made.
    """
    beside, within = os.path.abspath(output), os.path.join(os.path.abspath(output), 'export')
    with files.writing(output):
        os.makedirs(os.path.dirname(beside), exist_ok=True)
        for place in (beside, within):
            files.sweep(*os.path.split(place))
        folder = f'{within if os.path.isdir(output) else beside}.tmp-{os.getpid()}'
        os.makedirs(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(made: str, output: str, described: Mapping[str, Description]) -> None:
    """Moves the finished files to their places; those of other formats stay, and replaced files are moved away."""
    os.makedirs(output, exist_ok=True)
    index = os.path.join(output, INDEX)
    values = {path: dataclasses.asdict(description) for path, description in described.items()}
    # One process at a time. The index is there before any file, so that the command can be repeated after a kill.
    with files.alone(index):
        for entry in map(formats.entry, described):
            source, target = os.path.join(made, entry), os.path.join(output, entry)
            (files.replace_folder if os.path.isdir(source) else os.replace)(source, target)
        kept = {path: value for path, value in _known(index).items() if os.path.exists(os.path.join(output, path))}
        files.write_json(index, {'files': kept | values})


def _known(index: str) -> dict[str, Any]:
    """The files that an index lists; none if it is damaged, because it is written anew."""
    with contextlib.suppress(UserError):
        known = files.read_object(index, '').get('files')
        return known if isinstance(known, dict) else {}
    return {}
