"""`--mode=report`: a run's files -> one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import collections
import datetime
import hashlib
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jinja2
from absl import logging

from seg import __version__
from seg.errors import UserError
from seg.executor.records import write_text
from seg.report import event_files, run_files
from seg.report.charts import NUM_COLORS
from seg.report.classes import class_names, class_table, confusion_of, confusion_table
from seg.report.curves import COUNTS, SCORES, curves, name_of
from seg.report.event_files import StoredPicture
from seg.report.pictures import Embedded, embed
from seg.report.run_files import Evaluation, RunFiles, mapping, whole

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MOST_EVAL_FILES = 4  # Of --mode=eval, newest first: a table's columns.
_MOST_OF_A_GROUP = 12
_KINDS = {
    'fixed': ('Fixed images', 'The same ones in every evaluation.'),
    'worst': ('Worst images', 'Lowest mIoU of the single image first.'),
    'best': ('Best images', 'Highest mIoU of the single image first.'),
}
_DRAWINGS = {
    'confusion_matrix': 'Confusion matrix: true classes against predicted ones.',
    'class_iou': 'IoU of each class.',
    'class_pixels': 'Pixels of each class.',
}


def run_mode(model_dir: str | None, output: str | None, given: Sequence[str]) -> None:
    """What `--mode=report` does.

    Args:
      model_dir: the run's directory; None if it was not given.
      output: the file to write; None for the usual one.
      given: names of all other flags that were given.

    Raises:
      UserError: if a flag was given that a report has no use for, or as `write` does.
    """
    if given:
        raise UserError(
            f'--{given[0]} has no use in --mode=report, which tells what the files in --model_dir say. Leave it out.'
        )
    if not model_dir:
        raise UserError('--mode=report: give --model_dir=…, the directory of a run, such as runs/deeplab_shapes.')
    write(model_dir, output)


def write(model_dir: str, output: str | None = None) -> str:
    """Writes the report of a run, finished or not. Needs neither its data nor its model, and no TensorFlow.

    Args:
      model_dir: the run's directory.
      output: the file to write, replaced if it is there; None for `<model_dir>/report.html`.

    Returns:
      The file's path.

    Raises:
      UserError: if there is no run, or the file cannot be written.
    """
    run = run_files.read(model_dir)
    path = os.path.expanduser(output) if output else os.path.join(model_dir, 'report.html')
    if os.path.isdir(path):
        raise UserError(f'--output={path}: it is a folder; --mode=report writes one file, such as {path}/report.html.')
    text = render(run)
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f'--output={path}: cannot write there: {error.strerror}. Choose another file.') from None
    logging.info('Wrote %s (%.1f MB).', path, len(text) / 1e6)
    return path


def render(run: RunFiles) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'share': _share, 'grouped': _grouped}
    notes = list(run.notes)
    evaluations = run.evaluations()
    first = evaluations[0] if evaluations else None
    matrix = confusion_of(run, first)
    classes, confusion = class_table(run, first, matrix), confusion_table(run, matrix)
    told = {'class_iou': classes, 'class_pixels': matrix is not None and classes, 'confusion_matrix': confusion}
    stored = [p for p in event_files.pictures(os.path.join(run.model_dir, 'eval')) if not told.get(p.tag)]
    pictures = embed(_few_of_each_kind(sorted(stored, key=_picture_order)), notes)
    shown = [e for e in evaluations if e.label.startswith(('Last', 'Best'))]
    shown += evaluations[len(shown) : len(shown) + _MOST_EVAL_FILES]
    if len(shown) < len(evaluations):
        notes.append(f'Older evaluations in eval/ that are not shown: {len(evaluations) - len(shown)}.')
    style, script = (_asset(name) for name in ('page.css', 'page.js'))
    return environment.get_template('page.html').render(
        title=_title(run),
        status=_status(run),
        facts=_facts(run),
        tiles=_tiles(run, evaluations),
        notes=notes,
        evaluations=shown,
        metrics=_metric_rows(shown),
        classes=classes,
        confusion=confusion,
        drawings=[(p, _DRAWINGS[p.tag]) for p in pictures if p.tag in _DRAWINGS],
        charts=curves(run),
        num_colors=NUM_COLORS,
        groups=_groups([p for p in pictures if p.tag not in _DRAWINGS]),
        times=_times(run),
        hardware=_hardware(run),
        commands=_commands(run),
        settings=[(name, run.texts[name]) for name in ('operative_config.gin', 'config.gin') if name in run.texts],
        model_dir=os.path.abspath(run.model_dir),
        made=datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
        version=__version__,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


# ---- The top of the page ---------------------------------------------------------------------------------------------


def _title(run: RunFiles) -> str:
    folder = os.path.abspath(run.model_dir)
    name = os.path.basename(folder) or folder
    return f'{os.path.basename(os.path.dirname(folder))}, {name}' if name == 'overfit' else name


def _status(run: RunFiles) -> str:
    total = run.train_steps
    if run.complete:
        early = f' of at most {total:,}' if total and run.step < total else ''
        return f'Complete: {run.step:,} steps{early}.'
    of = f' of {total:,} ({100 * run.step / total:.0f} %)' if total else ''
    if run.running:
        return f'Training now: step {run.step:,}{of}.'
    return f'Not complete: step {run.step:,}{of}.' if run.train or run.run else f'Step {run.step:,}{of}.'


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """What was trained on what."""
    training = mapping(run.run.get('training'))
    parts = {key.rpartition('.')[2]: str(value) for key, value in training.items() if str(value).startswith('@')}
    names = [parts[slot].rpartition('.')[2] for slot in ('model', 'backbone') if slot in parts]
    count = re.match(r'([\d,]+) trainable weights', run.texts.get('model_info.txt', ''))
    evaluated = re.search(r'^experiment\.eval_data = @(\S+)', run.texts.get('operative_config.gin', ''), re.MULTILINE)
    facts = {
        'Mode': str(run.run.get('mode', '')).replace('_', ' '),
        'Data': str(run.dataset.get('name', '')),
        'Evaluated on': evaluated[1].replace('datasets.', '') if evaluated and run.evals else '',
        'Classes': str(len(class_names(run)) or ''),
        'Model': ', '.join(names),
        'Trainable weights': count[1] if count else '',
        'Batch size': _grouped(run.batch_size) if run.batch_size else '',
        'Optimizer': parts.get('optimizer', '').rpartition('.')[2],
        'Seed': str(training.get('RunConfig.seed', '')),
    }
    return [(name, value) for name, value in facts.items() if value]


def _tiles(run: RunFiles, evaluations: list[Evaluation]) -> list[tuple[str, str, float | None, str]]:
    """The headline numbers: (name, shown, exact value or None, what to know of it)."""
    tiles = []
    if evaluations:
        first = evaluations[0]
        best = next((e for e in evaluations[1:] if e.label == 'Best'), None)
        main = str(run.run.get('best_metric', 'miou'))
        for name in dict.fromkeys(n for n in (main, 'miou', 'pixel_accuracy') if n in first.metrics):
            detail = f'step {first.step:,}'
            if best and name in best.metrics:
                detail += f'; {"best " if name == main else ""}{_share(best.metrics[name])} at step {best.step:,}'
            elif first.label == 'Last and best':
                detail += ', the best one'
            if first.label not in ('Last', 'Best', 'Last and best'):
                detail += f', {first.label}'
            tiles.append((name_of(name), _share(first.metrics[name]), first.metrics[name], detail))
    elif run.train and 'loss' in run.train[-1]:
        loss = run.train[-1]['loss']
        tiles.append(('Training loss', f'{loss:.4g}', loss, f'step {run.step:,}; not evaluated yet'))
    if run.train_seconds:
        images = f', {run.step * run.batch_size:,} images' if run.batch_size else ''
        tiles.append(('Training time', _duration(run.train_seconds), run.train_seconds, f'{run.step:,} steps{images}'))
    if run.train_images_per_second:
        speed = next((e.images_per_second for e in evaluations if e.images_per_second), None)
        detail = f'evaluation: {_rate(speed)} images/s' if speed else ''
        rate = run.train_images_per_second
        tiles.append(('Images per second', _rate(rate), rate, f'training; {detail}' if detail else 'training'))
    return tiles


# ---- Scores ----------------------------------------------------------------------------------------------------------


def _metric_rows(evaluations: list[Evaluation]) -> list[tuple[str, list[tuple[float, str] | None]]]:
    """(name, (exact, shown) by evaluation, None where it has none), the important ones first, classes left out."""
    names = {name for e in evaluations for name in e.metrics if '/' not in name or name.startswith('loss/')}
    losses = sorted((name for name in names if name.startswith('loss')), key=lambda name: (name.count('/'), name))
    if len(losses) == 2:  # A single term is the loss.
        losses = losses[:1]
    others = sorted(name for name in names if name not in (*SCORES, *COUNTS) and not name.startswith('loss'))
    order = [*(n for n in SCORES if n in names), *others, *losses, *(n for n in COUNTS if n in names)]
    rows = []
    for name in order:
        show = _grouped if name in COUNTS else _share
        values = [e.metrics.get(name) for e in evaluations]
        label = f'Loss: {name.removeprefix("loss/")}' if '/' in name else name_of(name)
        rows.append((label, [None if value is None else (value, show(value)) for value in values]))
    return rows


# ---- Pictures --------------------------------------------------------------------------------------------------------


def _picture_order(picture: StoredPicture) -> tuple[Any, ...]:
    """Drawings first, then fixed, worst, best, others; numbers in a tag count as numbers."""
    group, _, name = picture.tag.rpartition('/')
    order = [*_DRAWINGS, *_KINDS]
    place = order.index(group or name) if (group or name) in order else len(order)
    return place, group, int(name) if name.isdecimal() else math.inf, name


def _few_of_each_kind(pictures: Iterable[StoredPicture]) -> Iterator[StoredPicture]:
    kept: dict[str, int] = {}
    for picture in pictures:
        group = picture.tag.rpartition('/')[0] or picture.tag
        kept[group] = kept.get(group, 0) + 1
        if kept[group] <= _MOST_OF_A_GROUP:
            yield picture


def _groups(pictures: list[Embedded]) -> list[tuple[str, str, list[tuple[str, Embedded]]]]:
    """(heading, remark, (alternative text, picture)…) of the pictures that belong together."""
    groups: dict[str, list[Embedded]] = {}
    for picture in pictures:
        groups.setdefault(picture.tag.rpartition('/')[0], []).append(picture)
    found = []
    for group, members in groups.items():
        heading, remark = _KINDS.get(group, (group.replace('_', ' ').capitalize() or 'Others', ''))
        remark += f'{" " if remark else ""}Step {members[0].step:,}.'
        found.append((heading, remark, [(f'{heading}: {p.tag.rpartition("/")[2]}', p) for p in members]))
    return found


# ---- Time, hardware, settings ----------------------------------------------------------------------------------------


def _times(run: RunFiles) -> list[tuple[str, str]]:
    seconds = [line['seconds'] for line in run.evals if 'seconds' in line]
    waits = [line['data_wait'] for line in run.train if 'data_wait' in line]
    memory = [line['host_memory_mb'] for line in run.train if 'host_memory_mb' in line]
    speed = next((e.images_per_second for e in run.evaluations() if e.images_per_second), None)
    starts = event_files.starts(os.path.join(run.model_dir, 'train'))
    resumes = [f'step {start.step:,} ({_moment(start.time)})' for start in starts[1:]]
    log = os.path.join(run.model_dir, 'metrics.jsonl')
    rows = {
        'Started': _moment(starts[0].time) if starts else '',
        'Resumed at': ', '.join(resumes[-5:])
        + (f', and {_count(len(resumes) - 5, "earlier time")}' if resumes[5:] else ''),
        'Last written': _moment(os.path.getmtime(log)) if os.path.isfile(log) else '',
        'Training': f'{_duration(run.train_seconds)}{f" in {len(starts)} parts" if resumes else ""}'
        if run.train_seconds
        else '',
        'Evaluation': f'{_duration(sum(seconds))} in {_count(len(seconds), "pass", "passes")}' if seconds else '',
        'Speed of training': f'{_rate(run.train_images_per_second)} images/s' if run.train_images_per_second else '',
        'Speed of evaluation': f'{_rate(speed)} images/s' if speed else '',
        'Waiting for data': f'{100 * sum(waits) / len(waits):.1f} % of the training time' if waits else '',
        'Largest memory': f'{max(memory) / 1024:.1f} GiB of the main process' if memory else '',
    }
    return [(name, value) for name, value in rows.items() if value]


def _hardware(run: RunFiles) -> list[tuple[str, str]]:
    about, known = run.run, dict(mapping(run.run.get('versions')))
    take = lambda key: '' if known.get(key) is None else _listed(known.pop(key))  # noqa: E731
    cores, memory = take('cpu_cores'), take('memory_gib')
    replicas = whole(about.get('replicas'))
    rows = {
        'Processor': ', '.join(filter(None, (take('processor'), f'{cores} cores' if cores else ''))),
        'Memory': f'{memory} GiB' if memory else '',
        'Devices': take('devices'),
        'Precision': _listed(about.get('precision', '')),
        'Strategy': _listed(about.get('strategy', '')) + (f', {_count(replicas, "replica")}' if replicas else ''),
        'XLA': _yes_or_no(about.get('jit_compile')),
        'Deterministic': _yes_or_no(about.get('deterministic')),
        'System': take('system'),
    }
    names = {'seg': 'seg', 'tensorflow': 'TensorFlow'}
    rows |= {names.get(key, key.replace('_', ' ').capitalize()): _listed(value) for key, value in known.items()}
    return [(name, value) for name, value in rows.items() if value]


def _commands(run: RunFiles) -> list[tuple[str, str]]:
    """Ways to repeat the run: (what it is, command)."""
    commands, started = [], run.run.get('command')
    if isinstance(started, list) and started:
        commands.append(('The command of this run', _in_shell([str(word) for word in started])))
    if 'config.gin' in run.texts:
        words = ['seg_main', f'--gin_file={os.path.join(run.model_dir, "config.gin")}', '--model_dir=runs/again']
        if run.run.get('mode') in ('train', 'overfit'):
            words.append(f'--mode={run.run["mode"]}')
        commands.append(('The same from the settings that it has kept', _in_shell(words)))
    return commands


def _in_shell(words: list[str]) -> str:
    """A command with a line for each flag."""
    return ' \\\n  '.join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word for the shell, as --gin_param="NAME='value'" where that is possible."""
    name, equals, value = word.partition('=')
    if shlex.quote(word) != word and equals and shlex.quote(name) == name and not re.search(r'["$`\\!]', value):
        return f'{name}="{value}"'
    return shlex.quote(word)


# ---- Numbers and text ------------------------------------------------------------------------------------------------


def _asset(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding='utf-8') as file:
        return file.read()


def _share(value: float) -> str:
    return f'{value:.4f}' if abs(value) < 1000 else f'{value:,.4g}'


def _grouped(value: float) -> str:
    return f'{value:,.0f}'


def _rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.1f}' if value >= 1 else f'{value:.2g}'


def _count(number: int, one: str, several: str = '') -> str:
    return f'{number:,} {one if number == 1 else several or one + "s"}'


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02} min' if hours else f'{minutes} min {rest:02} s'


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime('%Y-%m-%d %H:%M')


def _yes_or_no(value: Any) -> str:
    return 'yes' if value is True else 'no' if value is False else ''


def _listed(value: Any) -> str:
    """A value, or several with how many there are of each."""
    if not isinstance(value, list):
        return str(value)
    counts = collections.Counter(map(str, value))
    return ', '.join(
        name if count == 1 else f'{count} \N{MULTIPLICATION SIGN} {name}' for name, count in counts.items()
    )
