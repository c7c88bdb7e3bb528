"""The facts of a run besides its scores: state, data and model, time, hardware, commands."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from seg.report import text
from seg.report.run_files import RunFiles
from seg.run import event_files
from seg.run.values import whole


def title(run: RunFiles) -> str:
    folder = os.path.abspath(run.folder.path)
    name = os.path.basename(folder) or folder
    return f'{os.path.basename(os.path.dirname(folder))}, {name}' if name == 'overfit' else name


def status(run: RunFiles) -> str:
    total = run.about.train_steps
    if run.complete:
        early = f' of at most {total:,}' if total and run.step < total else ''
        return f'Complete: {run.step:,} steps{early}.'
    of = f' of {total:,} ({100 * run.step / total:.0f} %)' if total else ''
    if run.running:
        return f'Training now: step {run.step:,}{of}.'
    return f'Not complete: step {run.step:,}{of}.' if run.train or run.about.known else f'Step {run.step:,}{of}.'


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """Data, model, and how it was trained: (name, value)."""
    about, settings = run.about, run.about.settings
    parts = {key.rpartition('.')[2]: value for key, value in settings.items() if value.startswith('@')}
    names = [parts[slot].rpartition('.')[2] for slot in ('model', 'backbone') if slot in parts]
    count = re.match(r'([\d,]+) trainable weights', run.model_info)
    reader = settings.get('experiment.eval_data', '').removeprefix('@')
    evaluated = [reader.rpartition('.')[2], settings.get(f'{reader}.split', '').strip("'")]
    facts = {
        'Mode': about.mode.replace('_', ' '),
        'Data': run.dataset.get('name', ''),
        'Evaluated on': '/'.join(filter(None, evaluated)) if run.evals else '',
        'Classes': str(len(run.class_names) or ''),
        'Model': ', '.join(names),
        'Trainable weights': count[1] if count else '',
        'Batch size': text.grouped(about.batch_size) if about.batch_size else '',
        'Optimizer': parts.get('optimizer', '').rpartition('.')[2],
        'Seed': settings.get('RunConfig.seed', ''),
    }
    return [(name, value) for name, value in facts.items() if value]


def times(run: RunFiles) -> list[tuple[str, str]]:
    seconds = [each.seconds for each in run.evals if each.seconds is not None]
    waits = [line['data_wait'] for line in run.train if 'data_wait' in line]
    memory = [line['host_memory_mb'] for line in run.train if 'host_memory_mb' in line]
    speed = next((e.images_per_second for e in run.evaluations() if e.images_per_second), None)
    starts = event_files.starts(run.folder.train)
    resumes = [f'step {start.step:,} ({text.moment(start.time)})' for start in starts[1:]]
    log = run.folder.metrics
    passes = text.count(len(seconds), 'pass', 'passes')
    rows = {
        'Started': text.moment(starts[0].time) if starts else '',
        'Resumed at': ', '.join(resumes[-5:])
        + (f', and {text.count(len(resumes) - 5, "earlier time")}' if resumes[5:] else ''),
        'Last written': text.moment(os.path.getmtime(log)) if os.path.isfile(log) else '',
        'Training': f'{text.duration(run.train_seconds)}{f" in {len(starts)} parts" if resumes else ""}'
        if run.train_seconds
        else '',
        'Evaluation': f'{text.duration(sum(seconds))} in {passes}' if seconds else '',
        'Training speed': _speed(run.train_images_per_second),
        'Evaluation speed': _speed(speed),
        'Waiting for data': f'{100 * sum(waits) / len(waits):.1f} % of the training time' if waits else '',
        'Peak memory': f'{max(memory) / 1024:.1f} GiB of the main process' if memory else '',
    }
    return [(name, value) for name, value in rows.items() if value]


def _speed(rate: float | None) -> str:
    return f'{text.rate(rate)} images/s' if rate else ''


def hardware(run: RunFiles) -> list[tuple[str, str]]:
    about, known = run.about.hardware, dict(run.about.versions)
    take = lambda key: '' if known.get(key) is None else text.listed(known.pop(key))  # noqa: E731
    cores, memory = take('cpu_cores'), take('memory_gib')
    replicas = whole(about.get('replicas'))
    rows = {
        'Processor': ', '.join(filter(None, (take('processor'), f'{cores} cores' if cores else ''))),
        'Memory': f'{memory} GiB' if memory else '',
        'Devices': take('devices'),
        'Precision': text.listed(about.get('precision', '')),
        'Strategy': text.listed(about.get('strategy', ''))
        + (f', {text.count(replicas, "replica")}' if replicas else ''),
        'XLA': text.yes_or_no(about.get('jit_compile')),
        'Deterministic': text.yes_or_no(about.get('deterministic')),
        'System': take('system'),
    }
    names = {key: key for key in ('seg', 'jaxlib', 'libtpu')}
    names |= {'tensorflow': 'TensorFlow', 'onednn': 'oneDNN', 'jax': 'JAX'}
    rows |= {names.get(key, key.replace('_', ' ').capitalize()): text.listed(value) for key, value in known.items()}
    return [(name, value) for name, value in rows.items() if value]


def commands(run: RunFiles) -> list[tuple[str, str]]:
    """Commands that repeat the run: (heading, command)."""
    commands = []
    if run.about.command:
        commands.append(('The command of this run', _in_shell(run.about.command)))
    if run.config:
        words = ['seg_main', f'--gin_file={run.folder.config}', '--model_dir=runs/again']
        about = run.about.hardware
        words += [f'--{name}={about[name]}' for name in ('engine', 'precision') if name in about]
        words += ['--deterministic'] * (about.get('deterministic') is True)
        if run.about.mode:
            words.append(f'--mode={run.about.mode}')
        commands.append(('The same run from the stored settings', _in_shell(words)))
    return commands


def _in_shell(words: Sequence[str]) -> str:
    """A command, one flag per line."""
    return ' \\\n  '.join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word quoted for the shell, where possible as --gin_param="NAME='value'"."""
    name, equals, value = word.partition('=')
    if shlex.quote(word) != word and equals and shlex.quote(name) == name and not re.search(r'["$`\\!]', value):
        return f'{name}="{value}"'
    return shlex.quote(word)
