"""The files of a run, its end, and its continuation."""

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seg.engine import precision
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UnsavedError, UserError
from seg.executor.checkpoints import Checkpoints
from seg.executor.evaluation_records import EvaluationRecords
from seg.executor.progress import Progress
from seg.run.folder import RunFolder
from seg.run.metrics_log import MetricsLog
from seg.weights import tensor_file
from tests.executor.linear import Table, evaluation_input, executor, training_input

EMA = OptimizerStep(ema_decay=0.9)


@pytest.fixture(autouse=True)
def _float64():
    precision.set_precision('float64')
    yield
    precision.set_precision('float32')


def sources(train: Table | None = None):
    return training_input(train or Table()), evaluation_input(Table(7, split='val'))


def run(model_dir, train: Table | None = None, stop=None, **settings):
    """One process' run."""
    return executor(model_dir, **settings).train_and_evaluate(*sources(train), stop=stop)


def lines(model_dir, kind=None):
    with open(os.path.join(model_dir, 'metrics.jsonl'), encoding='utf-8') as file:
        return [line for line in map(json.loads, file) if kind in (None, line['kind'])]


def steps(model_dir, kind):
    return [line['step'] for line in lines(model_dir, kind)]


def tensors(model_dir, step):
    return tensor_file.read(os.path.join(model_dir, f'ckpt-{step:08d}.safetensors'))[0]


def assert_same_run(model_dir, other, step):
    """Equal weights, optimizer and averages at `step`, equal losses and metrics all along."""
    one, two = tensors(model_dir, step), tensors(other, step)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], name)
    timeless = [
        {k: v for k, v in line.items() if k in ('kind', 'step', 'learning_rate') or k.startswith(('loss', 'miou'))}
        for line in lines(model_dir)
    ]
    assert timeless == [{k: line[k] for k in kept} for kept, line in zip(timeless, lines(other), strict=True)]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A whole run of 11 steps in loops of 2, evaluated every 4. Returns its directory and results."""
    precision.set_precision('float64')
    folder = tmp_path_factory.mktemp('finished')
    return folder, run(folder, step=EMA, train_steps=11, num_pictures=2)


def test_files(finished):
    folder, _ = finished
    assert {'best', 'eval', 'metrics.jsonl', 'results.json', 'train'} <= set(os.listdir(folder))
    assert Checkpoints(RunFolder(str(folder)), 20).steps() == [2, 4, 6, 8, 10, 11]


def test_metrics_log(finished):
    folder, _ = finished
    assert steps(folder, 'train') == [2, 4, 6, 8, 10, 11], 'one line per loop; the last one is short'
    assert steps(folder, 'eval') == [4, 8, 11]
    for line in lines(folder, 'train'):
        assert list(line)[:2] == ['kind', 'step']
        assert line['loss'] == pytest.approx(line['loss/square'] + line['loss/absolute'])
        assert line['learning_rate'] == pytest.approx(0.05) and line['gradient_norm'] > 0
        assert line['images_per_second'] > 0 and 0 <= line['data_wait'] <= 1 and line['host_memory_mb'] > 50
    for line in lines(folder, 'eval'):
        assert line['examples'] == 7 == line['pixels'] and line['loss'] == line['loss/square'] and 0 < line['miou'] < 1


def test_results(finished):
    folder, results = finished
    with open(folder / 'results.json', encoding='utf-8') as file:
        assert json.load(file) == results
    assert results['step'] == 11 and results['examples'] == 7 and results['weights'] == 'ema'
    assert results['checkpoint'] == str(folder / 'ckpt-00000011.safetensors')
    assert results['config'] == str(folder / 'config.gin')
    assert results['metrics'].items() <= lines(folder, 'eval')[-1].items()
    for name in ('train_seconds', 'train_images_per_second', 'eval_images_per_second'):
        assert results[name] > 0, name
    best = max(lines(folder, 'eval'), key=lambda line: line['miou'])
    assert results['best']['step'] == best['step'] and results['best']['miou'] == best['miou']
    assert set(os.listdir(folder / 'best')) == {os.path.basename(results['best']['checkpoint']), 'metrics.json'}


def test_tensorboard(finished):
    folder, _ = finished
    train = EventAccumulator(str(folder / 'train')).Reload()
    expected = {'loss', 'loss/square', 'loss/absolute', 'learning_rate', 'gradient_norm', 'images_per_second'}
    expected |= {'data_wait', 'host_memory_mb'}
    assert expected <= {*train.Tags()['scalars'], *train.Tags()['tensors']}
    assert [event.step for event in train.Tensors('loss')] == [2, 4, 6, 8, 10, 11]
    written = [float(event.tensor_proto.float_val[0]) for event in train.Tensors('loss')]
    np.testing.assert_allclose(written, [line['loss'] for line in lines(folder, 'train')], rtol=1e-6)
    (text,) = [tag for tag in train.Tags()['tensors'] if tag.startswith('config')]
    assert b'rate = 0.05' in train.Tensors(text)[0].tensor_proto.string_val[0]

    evaluation = EventAccumulator(str(folder / 'eval')).Reload()
    assert {'miou', 'iou/a', 'loss', 'loss/square'} <= set(evaluation.Tags()['tensors'])
    tags = [f'{kind}/{i}' for kind in ('fixed', 'worst', 'best') for i in (1, 2)]
    assert set(evaluation.Tags()['images']) == {*tags, 'chart'}
    photo, chart = evaluation.Images('fixed/2'), evaluation.Images('chart')
    assert [image.step for image in photo] == [image.step for image in chart] == [4, 8, 11]
    assert (photo[-1].width, photo[-1].height) == (3, 4), 'that of row 3 of 7'
    assert photo[-1].encoded_image_string.startswith(b'\xff\xd8'), 'JPEG'
    assert (chart[-1].width, chart[-1].height) == (4, 5)
    assert chart[-1].encoded_image_string.startswith(b'\x89PNG')


def test_details_of_metrics(finished):
    folder, _ = finished
    for step in (4, 8, 11):
        with open(folder / 'eval' / f'counts-val-{step}.json', encoding='utf-8') as file:
            assert json.load(file) == {'rows': 7}


def test_records_name_split_weights_and_details(finished):
    folder, results = finished
    for line in lines(folder, 'eval'):
        details = {'counts': f'eval/counts-val-{line["step"]}.json'}
        assert (line['split'], line['weights'], line['details']) == ('val', 'ema', details)
    assert (results['split'], results['details']) == ('val', {'counts': 'eval/counts-val-11.json'})
    evaluated = executor(folder, step=EMA).evaluate(evaluation_input(Table(7, split='val')), settings=['a.b = 1'])
    (path,) = (folder / 'eval').glob('counts-val-11-*.json')
    assert evaluated['details'] == {'counts': f'eval/{path.name}'} and evaluated['split'] == 'val'


def test_finished_run_gives_the_same_results_again(finished):
    folder, results = finished
    before = (folder / 'metrics.jsonl').read_bytes(), (folder / 'ckpt-00000011.safetensors').stat().st_mtime_ns
    assert run(folder, step=EMA, train_steps=11) == results
    assert before == (
        (folder / 'metrics.jsonl').read_bytes(),
        (folder / 'ckpt-00000011.safetensors').stat().st_mtime_ns,
    )


def test_evaluate_uses_averages(finished):
    folder, results = finished
    made = executor(folder, step=EMA)
    evaluated = made.evaluate(evaluation_input(Table(7, split='val'), 3))
    assert evaluated['metrics'] == pytest.approx(results['metrics'], rel=1e-9)
    assert evaluated['weights'] == 'ema' and evaluated['step'] == 11 and evaluated['examples'] == 7
    assert evaluated['train_seconds'] == results['train_seconds']
    with open(folder / 'eval' / 'val-11.json', encoding='utf-8') as file:
        assert json.load(file) == evaluated
    kept = tensors(folder, 11)
    for variable in made._task.net.variables:
        np.testing.assert_array_equal(variable.numpy(), kept[f'ema/net/{variable.path}'], variable.path)


def test_evaluate_best_and_path(finished):
    folder, results = finished
    made, source = executor(folder), evaluation_input(Table(7, split='val'))
    best = made.evaluate(source, 'best')
    assert best['metrics']['miou'] == pytest.approx(results['best']['miou'])
    assert best['checkpoint'] == results['best']['checkpoint']
    path = str(folder / 'ckpt-00000004.safetensors')
    early = made.evaluate(source, path)
    assert early['step'] == 4 and early['checkpoint'] == path and (folder / 'eval' / 'val-4.json').exists()
    assert early['metrics']['miou'] == pytest.approx(lines(folder, 'eval')[0]['miou'])


def test_predictor(finished):
    folder, _ = finished
    made, table = executor(folder), Table(7, split='val')
    predictor = made.predictor()
    value = []
    for batch in evaluation_input(table).make().as_numpy_iterator():
        predictions = predictor(batch)
        value += [predictions.get('value', i) for i, index in enumerate(batch['index']) if index >= 0]
    net = made._task.net
    np.testing.assert_allclose(value, net(table.x[:, None, None], training=False)[:, 0, 0, 0], rtol=1e-6)


def test_raw_weights_without_averages(tmp_path):
    results = run(tmp_path, train_steps=2)
    assert results['weights'] == 'raw' == executor(tmp_path).evaluate(sources()[1])['weights']


@pytest.mark.parametrize('train_steps', [1, 3])
def test_run_shorter_than_every_period(tmp_path, train_steps):
    periods = {'iterations_per_loop': 100, 'eval_every': 1000, 'save_checkpoints_steps': 1000}
    assert run(tmp_path, train_steps=train_steps, **periods)['step'] == train_steps
    assert steps(tmp_path, 'train') == steps(tmp_path, 'eval') == [train_steps]
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [train_steps]


def test_best_is_the_first_of_the_highest(tmp_path):
    results = run(tmp_path, scores=[0.2, 0.7, 0.7], train_steps=10, keep_checkpoint_max=1)
    assert results['best'] == {
        'step': 8,
        'miou': 0.7,
        'checkpoint': str(tmp_path / 'best' / 'ckpt-00000008.safetensors'),
    }
    assert results['metrics']['miou'] == 0.7 and results['step'] == 10
    assert sorted(os.listdir(tmp_path / 'best')) == ['ckpt-00000008.safetensors', 'metrics.json']
    assert Checkpoints(RunFolder(str(tmp_path)), 1).steps() == [10]


def test_unknown_best_metric(tmp_path):
    with pytest.raises(UserError, match="best_metric = 'ap': the evaluation gives loss, loss/square, miou"):
        run(tmp_path, train_steps=2, best_metric='ap')


@pytest.mark.parametrize(('best_metric', 'line'), [('loss', 'step 4: loss '), ('miou', 'step 4: miou ')])
def test_the_log_has_the_best_metric(tmp_path, caplog, best_metric, line):
    """The task's own line has `miou` alone."""
    caplog.set_level('INFO')
    run(tmp_path, best_metric=best_metric, stop=lambda evaluation: True)
    (logged,) = (text for text in caplog.messages if line in text)
    assert logged.count('miou') == 1


def test_stop_ends_the_training(tmp_path):
    results = run(tmp_path, stop=lambda evaluation: True)
    assert results['step'] == 4 and Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [2, 4]


PATIENT = dict(eval_every=2, patience=2)
SCORES = [0.5, 0.7, 0.7, 0.6]  # Of steps 2, 4, 6 and 8: two evaluations after step 4 are not better.


def test_patience_ends_the_training(tmp_path, caplog):
    caplog.set_level('INFO')
    results = run(tmp_path, scores=SCORES, **PATIENT)
    assert results['step'] == 8 and results['early_stop'] == {'patience': 2, 'best_step': 4}
    assert results['best']['step'] == 4 and steps(tmp_path, 'train') == [2, 4, 6, 8]
    assert 'step 8 of 10' in caplog.text and 'RunConfig.patience = 2' in caplog.text and 'step 4 ' in caplog.text
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    assert run(tmp_path, **PATIENT) == results, 'the same command trains no further'
    assert before == (tmp_path / 'metrics.jsonl').read_bytes()


def test_patience_without_a_stop(tmp_path):
    results = run(tmp_path, scores=[0.5, 0.4, 0.6, 0.5, 0.4], **PATIENT)
    assert results['step'] == 10 and results['early_stop'] is None, 'the last evaluation is at the end anyway'


def test_continued_after_an_early_stop(tmp_path):
    """As if there had been no stop."""
    run(tmp_path / 'one', scores=SCORES, **PATIENT)
    results = run(tmp_path / 'one', scores=[0.8], **PATIENT | {'patience': None})
    assert results['step'] == 10 and results['early_stop'] is None and results['best']['step'] == 10
    run(tmp_path / 'other', scores=[*SCORES, 0.8], eval_every=2)
    assert_same_run(tmp_path / 'one', tmp_path / 'other', 10)


def test_train_alone_evaluates_nothing(tmp_path):
    assert executor(tmp_path).train(sources()[0], max_steps=4) == 4
    assert steps(tmp_path, 'train') == [2, 4] and steps(tmp_path, 'eval') == []
    assert executor(tmp_path).train(sources()[0]) == 10


# ---- Going on --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: no code of seg catches it."""


def kill_at(monkeypatch, kind, step, before=False):
    """Lets a run die when it writes (or is about to write) the line of `step` to metrics.jsonl."""
    add = MetricsLog.add

    def adding(self, this_kind, this_step, values):
        if before and (this_kind, this_step) == (kind, step):
            raise Killed
        add(self, this_kind, this_step, values)
        if (this_kind, this_step) == (kind, step):
            raise Killed

    monkeypatch.setattr(MetricsLog, 'add', adding)


@pytest.mark.parametrize(
    'kind, step, before',
    [
        ('train', 6, False),  # After a loop, before its checkpoint.
        ('eval', 4, True),  # After the checkpoint, before its evaluation is written.
        ('eval', 4, False),
        ('eval', 11, True),
        ('eval', 11, False),  # All is done but results.json.
    ],
)
def test_resumes_as_if_not_interrupted(finished, tmp_path, monkeypatch, kind, step, before):
    with monkeypatch.context() as patch:
        kill_at(patch, kind, step, before)
        with pytest.raises(Killed):
            run(tmp_path, step=EMA, train_steps=11)
    assert not (tmp_path / 'results.json').exists()
    results = run(tmp_path, step=EMA, train_steps=11)
    assert_same_run(tmp_path, finished[0], 11)
    assert results['metrics'] == finished[1]['metrics']
    assert results['best']['miou'] == finished[1]['best']['miou']
    assert set(os.listdir(tmp_path / 'best')) == set(os.listdir(finished[0] / 'best'))


@pytest.mark.parametrize('step, before, left', [(6, True, SCORES[2:]), (8, True, SCORES[3:]), (8, False, SCORES[3:])])
def test_patience_survives_a_kill(tmp_path, monkeypatch, step, before, left):
    """In the middle of the wait, before the evaluation that ends it, and before results.json."""
    expected = run(tmp_path / 'whole', scores=SCORES, **PATIENT)
    with monkeypatch.context() as patch:
        kill_at(patch, 'eval', step, before)
        with pytest.raises(Killed):
            run(tmp_path / 'killed', scores=SCORES, **PATIENT)
    results = run(tmp_path / 'killed', scores=left, **PATIENT)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole', 8)
    assert results['early_stop'] == expected['early_stop'] and results['best']['step'] == expected['best']['step'] == 4
    assert steps(tmp_path / 'killed', 'eval') == [2, 4, 6, 8]


def test_continued_with_more_steps(tmp_path, monkeypatch):
    """A kill just before results.json leaves the file of the shorter run, which is not taken for the end's."""
    assert run(tmp_path, train_steps=4)['step'] == 4
    with monkeypatch.context() as patch:
        kill_at(patch, 'eval', 10)
        with pytest.raises(Killed):
            run(tmp_path, train_steps=10)
    assert run(tmp_path, train_steps=10)['step'] == 10 and steps(tmp_path, 'eval') == [4, 8, 10]


def test_log_is_cut_at_the_restored_step(tmp_path):
    """Without checkpoints 8 and 10 the records after step 6 are removed, and a partial line at the end."""
    run(tmp_path, train_steps=10)
    for step in (8, 10):
        os.remove(tmp_path / f'ckpt-{step:08d}.safetensors')
    os.remove(tmp_path / 'results.json')
    with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as file:
        file.write('{"kind": "train", "st')
    executor(tmp_path).train(sources()[0], max_steps=6)
    assert steps(tmp_path, 'train') == [2, 4, 6] and steps(tmp_path, 'eval') == [4]


def test_damaged_newest_checkpoint(finished, tmp_path):
    """The run resumes from the checkpoint before, and ends equally."""
    run(tmp_path, step=EMA, train_steps=11)
    os.remove(tmp_path / 'results.json')
    with open(tmp_path / 'ckpt-00000011.safetensors', 'rb+') as file:
        file.truncate(200)
    run(tmp_path, step=EMA, train_steps=11)
    assert_same_run(tmp_path, finished[0], 11)
    assert (tmp_path / 'ckpt-00000011.safetensors.damaged').exists()


def test_seconds_add_up(tmp_path):
    executor(tmp_path).train(sources()[0], max_steps=4)
    first = executor(tmp_path, train_steps=4).evaluate(sources()[1])['train_seconds']
    executor(tmp_path).train(sources()[0], max_steps=10)
    assert executor(tmp_path).evaluate(sources()[1])['train_seconds'] > first > 0


def test_checkpoint_of_another_model(tmp_path):
    run(tmp_path, train_steps=2)
    with pytest.raises(UserError, match='was not made by this model and optimizer') as info:
        run(tmp_path, train_steps=4, step=EMA)
    assert 'ema/net' in str(info.value) and '--fresh' in str(info.value)


@pytest.mark.parametrize(
    'number, at, status', [(signal.SIGTERM, 3, 0), (signal.SIGTERM, 6, 0), (signal.SIGINT, 3, None)]
)
def test_a_signal_saves_first(tmp_path, finished, monkeypatch, number, at, status):
    """Also at a step that no period names (loops of 3, evaluation after 6)."""
    add = MetricsLog.add
    settings = dict(step=EMA, train_steps=11, iterations_per_loop=3, eval_every=6, save_checkpoints_steps=6)

    def terminated(self, kind, step, values):
        add(self, kind, step, values)
        if step == at:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, 'add', terminated)
        with pytest.raises(KeyboardInterrupt if status is None else SystemExit) as info:
            run(tmp_path, **settings)
    assert getattr(info.value, 'code', None) == status and signal.getsignal(number) == before
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [at] and not (tmp_path / 'results.json').exists()
    run(tmp_path, **settings)
    assert steps(tmp_path, 'train') == [3, 6, 9, 11] and steps(tmp_path, 'eval') == [6, 11]
    for name, value in tensors(finished[0], 11).items():
        np.testing.assert_array_equal(tensors(tmp_path, 11)[name], value, name)


# ---- What goes wrong -------------------------------------------------------------------------------------------------


def step_of(row: int) -> int:
    """The step, from 1, in which a row of the training table is first seen."""
    order = np.concatenate([batch['index'] for batch in _batches(3)])
    return int(np.flatnonzero(order == row)[0]) // 4 + 1


def _batches(count):

    data = training_input(Table()).make()
    return [{key: value.numpy() for key, value in batch.items()} for batch in data.take(count)]


def row_seen_at(step: int) -> int:
    return next(row for row in range(12) if step_of(row) == step)


def test_loss_that_is_not_finite(tmp_path):
    row = row_seen_at(3)
    with pytest.raises(UserError) as info:
        run(tmp_path, Table(nan=[row]))
    message = str(info.value)
    assert message.startswith('step 3: loss square = nan, absolute = nan (learning rate 0.05, gradient norm nan)')
    assert f'Images with a non-finite contribution: row-{row}.' in message
    assert 'Last good checkpoint: step 2.' in message
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [2] and steps(tmp_path, 'train') == [2]
    assert all(np.isfinite(value).all() for value in tensors(tmp_path, 2).values())


def test_gradient_that_is_not_finite(tmp_path):
    row = row_seen_at(2)
    with pytest.raises(UserError) as info:
        run(tmp_path, Table(steep=[row]))
    message = str(info.value)
    assert message.startswith('step 2: ') and 'gradient' in message and '(learning rate 0.05' in message
    assert f'row-{row}' in message.splitlines()[1] and message.splitlines()[1].count('row-') == 4
    assert 'Last good checkpoint: none.' in message
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [] and not (tmp_path / 'metrics.jsonl').read_text()


def test_unreadable_images_count_nowhere_and_shift_nothing(tmp_path, caplog):
    """Rows 2 and 5 are truncated files: named, weight 0, and all other positions of the stream are unchanged."""

    whole = _batches(6)
    data = training_input(Table(broken=[2, 5])).make()
    for expected, batch in zip(whole, data.take(6), strict=True):
        broken = np.isin(expected['index'], [2, 5])
        np.testing.assert_array_equal(batch['index'], expected['index'])
        np.testing.assert_array_equal(batch['weight'], np.where(broken, 0, 1))
        np.testing.assert_array_equal(batch['x'], np.where(broken[:, None], 0, expected['x']))
        np.testing.assert_array_equal(batch['seed'][~broken], expected['seed'][~broken])
    with caplog.at_level('WARNING'):
        results = executor(tmp_path, train_steps=6, iterations_per_loop=6, eval_every=6, save_checkpoints_steps=6)
        results = results.train_and_evaluate(
            training_input(Table(broken=[2, 5])), evaluation_input(Table(7, split='val', broken=[3]))
        )
    assert 'table/train: 4 image(s) could not be read and count nowhere: row-' in caplog.text
    assert 'row-2' in caplog.text and 'row-5' in caplog.text
    assert 'table/val: 1 image(s) could not be read and count nowhere: row-3. row-3: ' in caplog.text
    assert results['examples'] == 6 == results['metrics']['pixels']


def test_no_readable_image_at_all(tmp_path):
    made = executor(tmp_path)
    made.train(sources()[0], max_steps=2)
    with pytest.raises(UserError, match=r'table/val: none of 3 image\(s\) could be read: row-0, row-1, row-2. row-0: '):
        made.evaluate(evaluation_input(Table(3, split='val', broken=[0, 1, 2])))


def test_a_loop_without_an_image_ends_the_run(tmp_path):
    with pytest.raises(UserError, match=r'table/train: none of 8 image\(s\) could be read: .*JPEG'):
        executor(tmp_path).train(training_input(Table(4, broken=range(4))))
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == []


class WrongAtTheEnd(Table):
    """The evaluation fails for row 4: the code of the data set has a mistake there, as an invalid class id would be."""

    def load(self, index):
        y = tf.numpy_function(lambda i: [1.0, 2.0, 3.0, 4.0][i], [index], tf.float64)
        return super().load(index) | {'y': tf.ensure_shape(y, [])}


def test_wrong_evaluation_data_cost_no_step(tmp_path):
    """They may be found at the first evaluation only: its steps are on disk by then."""
    made = executor(tmp_path, train_steps=4, save_checkpoints_steps=1000)
    with pytest.raises(UserError, match="table/val, image 'row-4': load failed, .*test_executor.py:[0-9]+: IndexError"):
        made.train_and_evaluate(sources()[0], evaluation_input(WrongAtTheEnd(5, split='val')))
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [4]


def test_full_disk(tmp_path, monkeypatch):
    """The last good checkpoint stays, and the same command resumes from it once there is space."""
    write = tensor_file.write

    def full(path, *args):
        if path.endswith('ckpt-00000006.safetensors'):
            raise UserError(f'cannot write {path}: No space left on device.')
        write(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, 'write', full)
        with pytest.raises(UserError, match='No space left'):
            run(tmp_path)
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [2, 4]
    assert run(tmp_path)['step'] == 10 and steps(tmp_path, 'train') == [2, 4, 6, 8, 10]


def test_an_evaluation_that_could_not_be_recorded_whole_is_made_again(tmp_path, monkeypatch):
    def full(self, split, step, details):
        raise UserError('cannot write: No space left on device.')

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationRecords, 'write_details', full)
        with pytest.raises(UserError, match='No space left'):
            run(tmp_path)
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [2, 4] and steps(tmp_path, 'eval') == []
    assert run(tmp_path)['step'] == 10 and steps(tmp_path, 'eval') == [4, 8, 10]
    assert {path.name for path in (tmp_path / 'eval').glob('*.json')} == {f'counts-val-{i}.json' for i in (4, 8, 10)}


def test_evaluate_without_checkpoint(tmp_path):
    with pytest.raises(UserError, match='holds no checkpoint'):
        executor(tmp_path).evaluate(sources()[1])


def test_evaluate_with_another_model(finished):
    made = executor(finished[0])
    made._task.checkpoint_items = {'net': keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name='net')}
    with pytest.raises(UserError, match='Use the gin file that it was trained with'):
        made.evaluate(sources()[1])


def test_learns(tmp_path):
    """The table is a linear function of its rows, so the error converges to 0."""
    table = Table()
    results = executor(
        tmp_path, train_steps=300, iterations_per_loop=100, eval_every=300, save_checkpoints_steps=300, batch_size=12
    ).train_and_evaluate(training_input(table, 12), evaluation_input(table, 12))
    losses = [line['loss/square'] for line in lines(tmp_path, 'train')]
    assert losses[-1] < 0.01 < losses[0] and results['metrics']['miou'] > 0.99


# ---- Damaged, full and read-only -------------------------------------------------------------------------------------


@pytest.fixture
def evaluated_twice(tmp_path):
    """A finished run whose best step is the first evaluated one."""
    run(tmp_path, scores=[0.9, 0.5], train_steps=8)
    os.remove(tmp_path / 'results.json')
    return tmp_path


def damage_lines(folder, *steps):
    path = folder / 'metrics.jsonl'
    kept = path.read_text().splitlines()
    for i, line in enumerate(map(json.loads, list(kept))):
        if line['kind'] == 'eval' and line['step'] in steps:
            kept[i] = kept[i][:20]
    path.write_text('\n'.join(kept) + '\n')


def test_best_stays_though_its_line_is_damaged(evaluated_twice):
    damage_lines(evaluated_twice, 4, 8)
    results = run(evaluated_twice, scores=[0.6], train_steps=8)
    assert results['metrics']['miou'] == 0.6, 'made again, for its line was lost'
    assert results['best']['step'] == 4 and results['best']['miou'] == 0.9
    assert os.path.exists(results['best']['checkpoint'])


@pytest.mark.parametrize('record', [None, '{"step": 4, "met', '[]'])
def test_best_stays_without_a_record_of_its_scores(evaluated_twice, caplog, record):
    damage_lines(evaluated_twice, 4, 8)
    os.remove(evaluated_twice / 'best' / 'metrics.json')
    if record:
        (evaluated_twice / 'best' / 'metrics.json').write_text(record)
    with caplog.at_level('WARNING'):
        results = run(evaluated_twice, scores=[0.99], train_steps=8)
    assert results['best']['step'] == 4 and results['best']['miou'] is None
    assert 'best/ckpt-00000004.safetensors' in caplog.text and 'not known' in caplog.text


def test_best_of_a_run_without_a_record_of_it(evaluated_twice):
    """As earlier versions left it: the line in metrics.jsonl has the score."""
    os.remove(evaluated_twice / 'best' / 'metrics.json')
    assert run(evaluated_twice, train_steps=8)['best']['miou'] == 0.9


def test_a_score_that_is_not_finite_is_beaten(tmp_path):
    assert run(tmp_path, scores=[float('nan'), 0.1], train_steps=8)['best']['step'] == 8


@pytest.mark.parametrize('content', ['{"step": 8, "met', '[]', '{}', ''])
def test_damaged_results_are_made_again(evaluated_twice, content):
    (evaluated_twice / 'results.json').write_text(content)
    results = run(evaluated_twice, train_steps=8)
    assert results['step'] == 8 and json.loads((evaluated_twice / 'results.json').read_text()) == results


def test_all_checkpoints_damaged_is_no_fresh_start(evaluated_twice):
    for step in Checkpoints(RunFolder(str(evaluated_twice)), 20).steps():
        with open(evaluated_twice / f'ckpt-{step:08d}.safetensors', 'rb+') as file:
            file.truncate(100)
    before = (evaluated_twice / 'metrics.jsonl').read_bytes()
    for _ in range(3):
        made = executor(evaluated_twice)
        assert made.has_checkpoint()
        with pytest.raises(UserError, match='none of its 4 checkpoints'):
            made.train(sources()[0])
    assert (evaluated_twice / 'metrics.jsonl').read_bytes() == before
    assert (evaluated_twice / 'best' / 'ckpt-00000004.safetensors').exists()


def test_stray_files_are_removed_at_the_start(tmp_path):
    for folder in ('.', 'best', 'eval'):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / 'any.json.tmp-999999999').write_text('half')
    executor(tmp_path).train(sources()[0], max_steps=2)
    assert not list(tmp_path.rglob('*.tmp-*'))


@pytest.mark.parametrize('place', ['metrics.jsonl', 'train', 'eval', 'best', 'results.json'])
def test_a_place_that_cannot_be_written(tmp_path, place):
    """One message that names the file; the saved state is intact, and the same command resumes once it is repaired."""
    (tmp_path / 'mended').mkdir()
    wrong = tmp_path / place
    wrong.mkdir() if '.' in place else wrong.write_text('a file')
    with pytest.raises(UserError) as info:
        run(tmp_path, train_steps=4)
    assert place in str(info.value)
    saved = Checkpoints(RunFolder(str(tmp_path)), 5).steps()
    wrong.rmdir() if '.' in place else wrong.unlink()
    assert all(np.isfinite(value).all() for step in saved for value in tensors(tmp_path, step).values())
    assert run(tmp_path, train_steps=4)['step'] == 4


def test_scores_that_cannot_be_written_are_in_the_error(evaluated_twice):
    for path in (evaluated_twice / 'eval').iterdir():
        path.unlink()
    (evaluated_twice / 'eval').rmdir()
    (evaluated_twice / 'eval').write_text('a file')
    with pytest.raises(UnsavedError) as info:
        executor(evaluated_twice).evaluate(sources()[1])
    assert info.value.results['step'] == 8 and info.value.results['metrics']['miou'] > 0
    assert 'eval' in str(info.value)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_evaluation(tmp_path, monkeypatch, number):
    """It ends there, for the state is saved; the evaluation is made at the next start."""
    batches = []
    update = Progress.update

    def interrupted(self, done, *args, **kwargs):
        update(self, done, *args, **kwargs)
        if self._what.startswith('evaluating') and done:  # The first line, of 0, is shown before anything is done.
            batches.append(done)
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, 'update', interrupted)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            run(tmp_path)
    assert batches == [4], 'not a batch more'
    assert steps(tmp_path, 'train') == [2, 4] and steps(tmp_path, 'eval') == []
    assert run(tmp_path)['step'] == 10 and steps(tmp_path, 'eval') == [4, 8, 10]


def test_the_second_interrupt_leaves_at_once(tmp_path, monkeypatch):
    add = MetricsLog.add

    def twice(self, kind, step, values):
        add(self, kind, step, values)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, 'add', twice)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert Checkpoints(RunFolder(str(tmp_path)), 5).steps() == [] and signal.getsignal(signal.SIGINT) is not None
