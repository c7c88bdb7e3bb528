"""The Protocol is enough, and names no framework: the executor drives an engine in numpy, on 1 and 2 processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from seg.engine.base import checked_terms
from seg.errors import UserError
from seg.executor import stopping
from seg.executor.checkpoints import Checkpoints
from seg.run.folder import RunFolder
from seg.structures import LossTerm
from tests.engine import toy


def lines(folder):
    with open(os.path.join(folder, 'metrics.jsonl'), encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def weights(folder):
    return Checkpoints(RunFolder(str(folder)), 9).find('latest').tensors['model/plane/weight']


def on_two_processes(work):
    """What `work(engine, index)` gives, or raises, in each of two processes; here they are threads."""
    team, found = toy.Team(2), [None, None]

    def process(index):
        try:
            found[index] = work(toy.ToyEngine(team, index), index)
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=process, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), 'a process waits for the other one'
    return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A whole run on one process. Returns its directory and results."""
    folder = tmp_path_factory.mktemp('one')
    return folder, toy.run(str(folder), toy.ToyEngine())


def test_train_and_evaluate(finished):
    folder, results = finished
    assert results['step'] == 8 and results['examples'] == 7
    assert results['metrics']['rows'] == 7 == results['metrics']['gathered']
    train, scored = ([line for line in lines(folder) if line['kind'] == kind] for kind in ('train', 'eval'))
    assert [line['step'] for line in train] == [2, 4, 6, 8] and [line['step'] for line in scored] == [4, 8]
    losses = [line['loss/square'] for line in train]
    assert losses[-1] < losses[0] / 3 and scored[1]['miou'] > scored[0]['miou']
    assert all('counts/large' in line for line in train)


def test_without_any_framework(tmp_path, finished):
    command = [sys.executable, '-m', 'tests.engine.toy', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['metrics'] == finished[1]['metrics']


def test_patience_ends_all_processes(tmp_path):
    """They agree, and a second start ends at once."""

    def work(engine, index):
        return toy.run(str(tmp_path), engine, best_metric='rows', patience=1, train_steps=20)

    for _ in range(2):
        assert [results['step'] for results in on_two_processes(work)] == [8, 8]
    assert [line['step'] for line in lines(tmp_path) if line['kind'] == 'eval'] == [4, 8]


def test_a_run_resumes(tmp_path, finished):
    toy.run(str(tmp_path), toy.ToyEngine(), train_steps=4)
    toy.run(str(tmp_path), toy.ToyEngine())
    np.testing.assert_array_equal(weights(tmp_path), weights(finished[0]))


def test_evaluate_and_predict(finished):
    folder, results = finished
    made = toy.executor(str(folder), toy.ToyEngine())
    assert made.evaluate(toy.rows(7, 4, endless=False))['metrics'] == results['metrics']
    batch = next(toy.rows(7, 4, endless=False).make())
    np.testing.assert_allclose(made.predictor()(batch).get('value', 2), batch['x'][2] @ weights(folder))


def test_two_processes_are_as_one_and_the_chief_alone_writes(tmp_path, finished):
    folder, results = finished
    one, other = on_two_processes(lambda engine, index: toy.run(str(tmp_path / str(index)), engine))
    assert not (tmp_path / '1').exists()
    for each in (one, other):
        assert each['metrics'] == pytest.approx(results['metrics'], rel=1e-12)
    np.testing.assert_allclose(weights(tmp_path / '0'), weights(folder), rtol=1e-12)
    for mine, whole in zip(lines(tmp_path / '0'), lines(folder), strict=True):
        assert {k: v for k, v in mine.items() if 'loss' in k} == pytest.approx(
            {k: v for k, v in whole.items() if 'loss' in k}, rel=1e-12
        )


def test_both_processes_resume_after_the_chief_has_cleared_up(tmp_path, finished):
    on_two_processes(lambda engine, index: toy.run(str(tmp_path), engine, train_steps=4))
    damaged = tmp_path / 'ckpt-00000006.safetensors'
    damaged.write_bytes(b'cut off')
    one, other = on_two_processes(lambda engine, index: toy.run(str(tmp_path), engine))
    assert one['metrics'] == other['metrics'] and not damaged.exists()
    np.testing.assert_allclose(weights(tmp_path), weights(finished[0]), rtol=1e-12)


@pytest.mark.parametrize('asked', [0, 1])
def test_a_signal_to_one_process_stops_both_at_one_step(tmp_path, monkeypatch, asked):
    heard = {}

    @contextlib.contextmanager
    def listening():
        heard[threading.current_thread()] = stop = stopping.Stopping()
        yield stop

    monkeypatch.setattr(stopping, 'listening', listening)

    def work(engine, index):
        def loops(steps):
            taken.append(steps)
            if index == asked and sum(taken) == 6:
                heard[threading.current_thread()].asked = signal.SIGTERM

        taken = []
        engine.loops = loops
        toy.run(str(tmp_path), engine)

    found = on_two_processes(work)
    assert [type(error) for error in found] == [SystemExit, SystemExit]
    assert Checkpoints(RunFolder(str(tmp_path)), 9).steps() == [4, 6]


def test_an_error_of_the_chief_ends_both(tmp_path):
    def work(engine, index):
        def loops(steps):
            if index == 0 and (tmp_path / 'metrics.jsonl').is_file():
                (tmp_path / 'metrics.jsonl').unlink()
                (tmp_path / 'metrics.jsonl').mkdir()

        engine.loops = loops
        toy.run(str(tmp_path), engine)

    one, other = on_two_processes(work)
    assert isinstance(one, UserError) and 'metrics.jsonl' in str(one)
    assert isinstance(other, UserError) and 'Another process' in str(other)


def test_an_early_stop_is_agreed_upon(tmp_path):
    def work(engine, index):
        made = toy.executor(str(tmp_path), engine)
        data = toy.rows(12, 4, endless=True), toy.rows(7, 4, endless=False)
        return made.train_and_evaluate(*data, stop=lambda evaluation: index == 1)

    assert [results['step'] for results in on_two_processes(work)] == [4, 4]


@pytest.mark.parametrize(
    ('terms', 'found'), [(3.5, '3.5'), ({}, '{}'), ({'loss': 0.25}, '0.25'), ([LossTerm(1, 1)], 'LossTerm')]
)
def test_losses_of_a_task_are_terms_by_name(terms, found):
    assert checked_terms(None, {'loss': LossTerm(1, 1)}) == {'loss': LossTerm(1, 1)}
    with pytest.raises(UserError, match='loss_terms returned') as caught:
        checked_terms(object(), terms)
    assert found in str(caught.value)
