"""From parsed settings to a finished run: the one place where the parts meet."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from absl import logging

from seg import checks, config, plugins, registry
from seg import engine as engines
from seg.datasets import contract, overlap
from seg.datasets.base import FirstExamples
from seg.engine import set_up
from seg.engine.base import Engine
from seg.engine.optimizer_step import OptimizerStep
from seg.errors import UserError
from seg.executor.agreement import together
from seg.executor.executor import Executor
from seg.executor.overfit import Overfit
from seg.executor.run_config import RunConfig
from seg.prediction import data_set, kinds, pipeline
from seg.prediction.request import Request
from seg.prediction.settings import Predict
from seg.run import dataset_info
from seg.run import settings as run_settings
from seg.run.folder import RunFolder
from seg.run.lock import locked
from seg.structures import ClassHistogram
from seg.weights.warm_start import Init

MODES = ('train_and_eval', 'train', 'eval', 'predict', 'overfit', 'report')
_TRAINING_MODES = ('train_and_eval', 'train', 'overfit')

# Bindings that a mode has no use for, beside those of parts that it does not build.
_NOT_TRAINING = (
    'train/*',
    'optimizers.*',
    'schedules.*',
    'OptimizerStep.*',
    'augments.*',
    'init.*',
    'overfit.*',
    'overfit/*',
)
_IDLE = {
    'train_and_eval': ('overfit.*', 'overfit/*', 'predict.*'),
    'train': ('eval/*', 'overfit.*', 'overfit/*', 'predict.*'),
    'overfit': ('eval/*', 'RunConfig.*', 'predict.*'),
    'eval': (*_NOT_TRAINING, 'predict.*'),
    'predict': _NOT_TRAINING,
}
_NO_DATA = ('datasets.*', 'eval/*')  # Where the pictures come from --input.


class Experiment:
    """The root of the settings: which task, data and optimizer; everything else hangs on these."""

    def __init__(
        self,
        *,
        model_dir: str,
        mode: str,
        engine: Engine,
        fresh: bool,
        own_pictures: bool,
        task,
        train_data,
        eval_data,
        optimizer,
    ):
        """Builds what the mode needs.

        Args:
          model_dir: supplied; the run's directory.
          mode: supplied; one of `MODES`.
          engine: supplied; where and in which precision.
          fresh: supplied; whether an earlier run in the directory counts for nothing.
          own_pictures: supplied; whether pictures are given to `predict`, which then needs no data set.
          task: reference to a task.
          train_data: reference to the data set to learn from.
          eval_data: reference to the data set to evaluate on.
          optimizer: reference to an optimizer.
        """
        self.mode, self.folder, self._fresh = mode, RunFolder(model_dir), fresh
        trains = mode in _TRAINING_MODES
        self._overfit: Overfit = config.injected('overfit')()
        self.settings: Predict | None = config.injected('predict')() if mode == 'predict' else None
        run: RunConfig = config.injected('RunConfig')(model_dir=model_dir)
        run = self._overfit.applied(run) if mode == 'overfit' else run
        if trains:
            run.per_replica(run.batch_size, engine.num_devices, 'batch_size')
        run.per_replica(run.evaluation_batch_size, engine.num_devices, 'eval_batch_size')
        keras.utils.set_random_seed(run.seed)

        factory = registry.tasks.check(task, 'experiment.task')
        supplied = {'seed': run.seed, 'target': factory.entry.target}
        train_factory = registry.datasets.check(train_data, 'experiment.train_data')
        eval_factory = registry.datasets.check(eval_data, 'experiment.eval_data')
        make_train_data = functools.cache(lambda: train_factory(**supplied))
        self.train_data = make_train_data() if trains else None
        evaluates = mode in ('train_and_eval', 'eval', 'predict') and not own_pictures
        self.eval_data = eval_factory(**supplied) if evaluates else None
        for dataset, made in ((self.train_data, train_factory), (self.eval_data, eval_factory)):
            if dataset is not None:
                slot = f'{made.slot}: {made.entry.reference} ({made.entry.place})'
                contract.verify(dataset, factory.entry.target, slot)
        if self.train_data is not None and self.eval_data is not None:
            overlap.warn_of_shared(self.train_data, self.eval_data)
        if mode == 'overfit':
            self.train_data = FirstExamples(self.train_data, self._overfit.num_images, 'overfit.num_images')
        self.info = self.train_data.info if trains else dataset_info.read(self.folder)
        if self.eval_data is not None:
            checks.same_classes(self.info, self.eval_data.info)

        self._histogram: ClassHistogram | None = None

        def class_histogram() -> ClassHistogram:
            if self._histogram is None and not fresh and self.folder.has_checkpoint():
                self._histogram = dataset_info.read_class_histogram(self.folder, self.info)
            if self._histogram is None:
                self._histogram = make_train_data().class_histogram()
            return self._histogram

        with engine.scope():
            self.task = factory(dataset_info=self.info, seed=run.seed, class_histogram=class_histogram)
            self.optimizer = None
            if trains:
                self.optimizer = registry.optimizers.build(
                    optimizer, 'experiment.optimizer', total_steps=run.train_steps, batch_size=run.batch_size
                )
        self.run_config = run
        self._init: Init = config.injected('init')()
        self.executor = Executor(
            task=self.task,
            engine=engine,
            config=run,
            optimizer=self.optimizer,
            step=config.injected('OptimizerStep')(),
            config_text=lambda: config.markdown(config.operative()),
        )

    def check(self) -> None:
        """Refuses what cannot run or would mean nothing, and makes all ready to run. Nothing on disk changes.

        The one list for runs and for `--validate`.

        Raises:
          UserError: for the first thing that is wrong.
        """
        run, task, executor = self.run_config, self.task, self.executor
        if self.mode not in _TRAINING_MODES:
            return  # What is wrong with the checkpoint is told when it is loaded, and nothing is written before.
        goes_on = not self._fresh and executor.has_checkpoint()
        if goes_on:
            executor.check_classes()
            run_settings.check(self.folder)
        if self.mode != 'train':
            checks.best_metric(run.best_metric, task.metrics())
        if self.mode == 'overfit':
            self._inputs = task.overfit_inputs(self.train_data, run.batch_size)
        else:
            self._inputs = (task.training_input(self.train_data, run.batch_size),)
        if self.mode == 'train_and_eval':
            self._inputs += (task.evaluation_input(self.eval_data, run.evaluation_batch_size),)
        if self.mode != 'train' and hasattr(task, 'self_test'):
            task.self_test(self.train_data if self.mode == 'overfit' else self.eval_data)
        if not goes_on:  # A run that goes on takes the weights of its checkpoint.
            self._init.apply(task.checkpoint_items)
        executor.build_trainer()

    def execute(self, checkpoint: str = 'latest', request: Request | None = None) -> dict[str, Any] | None:
        """Does what the mode says, after `check`. Returns the results where the mode has some.

        Args:
          checkpoint: for `eval` and `predict`: `latest`, `best` or a path.
          request: for `predict`.
        """
        run, task = self.run_config, self.task
        if self.mode in _TRAINING_MODES:
            replicas = self.executor.engine.num_devices
            logging.info(
                'Batches of %d images = %d x %d replica(s).', run.batch_size, run.batch_size // replicas, replicas
            )
            describe = getattr(self.optimizer._learning_rate, 'describe', None)  # Any Keras schedule may stand here.
            logging.info('Learning rate %s', describe() if describe else type(self.optimizer._learning_rate).__name__)
        if self.mode == 'train':
            self.executor.train(*self._inputs)
            return None
        if self.mode == 'train_and_eval':
            return self.executor.train_and_evaluate(*self._inputs)
        if self.mode == 'overfit':
            return self.executor.train_and_evaluate(
                *self._inputs, stop=lambda evaluation: evaluation.metrics[run.best_metric] >= self._overfit.target
            )
        if self.mode == 'predict':
            return self._predict(request, checkpoint)
        return self.executor.evaluate(
            task.evaluation_input(self.eval_data, run.evaluation_batch_size),
            checkpoint,
            run_settings.changed_for_evaluation(self.folder),
        )

    def _predict(self, request: Request, checkpoint: str) -> dict[str, Any]:
        info = self.info if request.pictures is not None else self.eval_data.info
        pictures = data_set.pictures(self.eval_data) if request.pictures is None else request.pictures
        output = request.output or self.folder.predictions(info.name)
        outputs = kinds.outputs(self.task, output, self.info, self.settings, request.probabilities)
        results = pipeline.predict(
            pictures,
            self.executor.predictor(checkpoint),
            outputs,
            size=self.task.canvas(info.max_size),
            batch_size=self.run_config.evaluation_batch_size,
            settings=self.settings,
        )
        logging.info('Predictions: %s', output)
        return results

    def describe(self, command: Sequence[str] = ()) -> None:
        """Writes the settings and what eval and predict have to know of the training data.

        Args:
          command: the command line that this process runs; empty for none.
        """
        run_settings.write(
            self.folder,
            mode=self.mode,
            hardware=self.executor.engine.describe(),
            batch_size=self.run_config.batch_size,
            train_steps=self.run_config.train_steps,
            best_metric=self.run_config.best_metric,
            command=command,
            versions=engines.describe(),
            parts=self.task.checkpoint_items,
        )
        dataset_info.write(self.folder, self.info, self._histogram)

    def overfit_failure(self, results: dict[str, Any]) -> str | None:
        """What to tell of an overfit run that missed its target; None if it reached it."""
        metric = self.run_config.best_metric
        reached = results['metrics'][metric]
        if reached >= self._overfit.target:
            return None
        return (
            f'overfit: {metric} reached {reached:.3f} after {results["step"]} steps, short of {self._overfit.target}. '
            f'The model cannot learn {self._overfit.num_images} images by heart. Look at their labels (TensorBoard: '
            f'{self.folder.eval}), raise overfit.train_steps, or change the learning rate.'
        )


config.configurable('experiment', supplied=('model_dir', 'mode', 'engine', 'fresh', 'own_pictures'))(Experiment)
config.configurable('RunConfig', supplied=('model_dir',))(RunConfig)
config.configurable('OptimizerStep')(OptimizerStep)
config.configurable('init')(Init)
config.configurable('overfit')(Overfit)
config.configurable('predict')(Predict)


def run(
    gin_files: Sequence[str] = (),
    *,
    model_dir: str | None = None,
    mode: str = 'train_and_eval',
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    fresh: bool = False,
    checkpoint: str = 'latest',
    input: str | Sequence[str] = (),
    output: str | None = None,
    probabilities: bool = False,
    engine: Engine | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Runs an experiment; what the command line does, for notebooks and scripts.

    Args:
      gin_files: gin files, later ones over earlier ones. May be empty for `eval` and `predict`, which then read the
        settings that `model_dir` was trained with.
      model_dir: the run's directory; None for `runs/<name of the last gin file>`, or `runs/<folder>` where that is
        called `<folder>/run.gin`.
      mode: `train_and_eval`, `train`, `eval`, `predict`, `overfit`, or `report`, for `model_dir` and `output` alone.
      gin_params: single bindings, such as `TRAIN_STEPS=200`.
      plugin_specs: modules or files with parts of your own, as --plugins takes them.
      fresh: whether to remove an earlier run from `model_dir` first.
      checkpoint: for `eval` and `predict`: `latest`, `best` or a path.
      input: for `predict`: pictures (files, folders, globs); empty for the evaluation data.
      output: for `predict`: a folder; None for `predictions/<split>` in `model_dir`, or `predictions/input` there. For
        `report`: a file; None for `report.html` in `model_dir`.
      probabilities: for `predict`: whether to write class probabilities as well.
      engine: from `seg.engine.set_up`; None for `auto` in everything.
      command: the command line that asks for this; a training keeps it in `run.json`.

    Returns:
      What `results.json` holds (for `eval`: the file that `Executor.evaluate` writes; for `predict`: numbers of
      pictures, and the reasons of those that failed); None for `train` and `report`.

    Raises:
      UserError: for every mistake in the settings or the data, with one message that says how to mend it.
    """
    if mode == 'report':
        from seg.report import page  # Its libraries would delay the start of all other modes.

        given = {'gin_file': gin_files, 'gin_param': gin_params, 'plugins': plugin_specs, 'fresh': fresh}
        given |= {'input': input, 'probabilities': probabilities, 'checkpoint': checkpoint != 'latest'}
        page.run_mode(model_dir, output, [name for name, value in given.items() if value])
        return None
    asked, trains = (input, output, probabilities), mode in _TRAINING_MODES
    settings = (gin_files, gin_params, plugin_specs, model_dir, mode)
    with _checked(settings, fresh, checkpoint, asked, engine) as (experiment, request):
        folder = experiment.folder
        # Not before the new settings have proved sound, and the weights to start from are there.
        with together(experiment.executor.engine):
            if experiment.executor.engine.chief:
                if fresh or mode == 'overfit':
                    folder.clear()
                if trains:
                    experiment.describe(command)
        results = experiment.execute(checkpoint, request)
    if trains:
        logging.info('Curves and pictures: tensorboard --logdir %s', folder.path)
        logging.info('On one page: seg_main --mode=report --model_dir=%s', folder.path)
        if results is not None:
            logging.info('Scores: %s', folder.results)
    if mode == 'overfit' and (failure := experiment.overfit_failure(results)):
        raise UserError(failure)
    return results


def validate(
    gin_files: Sequence[str] = (),
    *,
    model_dir: str | None = None,
    mode: str = 'train_and_eval',
    gin_params: Sequence[str] = (),
    plugin_specs: Sequence[str] = (),
    fresh: bool = False,
    checkpoint: str = 'latest',
    input: str | Sequence[str] = (),
    output: str | None = None,
    probabilities: bool = False,
    engine: Engine | None = None,
) -> str:
    """Builds everything and refuses what `run` refuses before its first step; runs nothing and leaves no file.

    Arguments as `run` has them.

    Returns:
      What was found, in a line.

    Raises:
      UserError: for every mistake in the settings or the data.
    """
    asked, settings = (input, output, probabilities), (gin_files, gin_params, plugin_specs, model_dir, mode)
    with _checked(settings, fresh, checkpoint, asked, engine, keep=False) as (experiment, _):
        if mode not in _TRAINING_MODES:
            experiment.executor.predictor(checkpoint)
        weights = run_settings.model_info(experiment.task.checkpoint_items).splitlines()[0]
    return f'Valid: {experiment.info.name}, {experiment.info.num_classes} classes, {weights}; nothing was run.'


@contextlib.contextmanager
def _checked(
    settings: tuple, fresh: bool, checkpoint: str, asked: tuple, engine: Engine | None, keep: bool = True
) -> Iterator[tuple[Experiment, Request | None]]:
    """The way that runs and `--validate` have in common: an experiment that may begin, its directory held meanwhile.

    Args:
      settings: what `load_settings` is given, the mode last.
      fresh: as in `run`.
      checkpoint: as in `run`.
      asked: what `predict` is asked for: input, output, probabilities.
      engine: as in `run`.
      keep: whether the directory stays where it was not there before.
    """
    engine = engine or set_up()
    model_dir, mode = load_settings(*settings), settings[-1]
    trains = mode in _TRAINING_MODES
    if fresh and not trains:
        raise UserError(f'--fresh would remove the run in {model_dir}, which --mode={mode} needs. Leave --fresh out.')
    if trains and checkpoint != 'latest':
        raise UserError(
            f'--checkpoint={checkpoint} is for --mode=eval and predict: training goes on from the latest one. To start '
            'a new run from other weights, bind init.weights.'
        )
    request = Request.of(mode, model_dir, *asked)
    with locked(RunFolder(model_dir), keep) if trains and engine.chief else contextlib.nullcontext():
        experiment = build(model_dir, mode, engine, fresh or mode == 'overfit', request)
        experiment.check()
        yield experiment, request


def load_settings(
    gin_files: Sequence[str], gin_params: Sequence[str], plugin_specs: Sequence[str], model_dir: str | None, mode: str
) -> str:
    """Loads all plugins, parses the settings and locks them. Returns the `model_dir`.

    Raises:
      UserError: for the first mistake found.
    """
    if mode not in MODES:
        hints = ''.join(f' Did you mean {near}?' for near in registry.near_misses(mode, MODES)[:1])
        raise UserError(f'--mode={mode}: expected one of {", ".join(MODES)}.{hints}')
    if mode == 'report':
        raise UserError('--mode=report has no settings: it tells what the files in --model_dir say.')
    load_parts(plugin_specs)
    model_dir = model_dir and os.path.expanduser(model_dir)
    if not gin_files:
        need = 'No settings: give --gin_file=…, such as --gin_file=gin/deeplab_shapes.gin.'
        if mode in _TRAINING_MODES:
            raise UserError(need)
        if model_dir is None:
            raise UserError(f'{need} Or give the --model_dir of a training: --mode={mode} reads its settings.')
        snapshot = RunFolder(model_dir).config
        if not os.path.exists(snapshot):
            raise UserError(f'--model_dir={model_dir}: no run was trained there, for there is no {snapshot}. {need}')
        gin_files = [snapshot]
    config.parse(gin_files, gin_params)
    return directory(gin_files, model_dir, mode)


def directory(gin_files: Sequence[str], model_dir: str | None, mode: str) -> str:
    """Returns the run's directory: as asked for, or else named after the last gin file; overfit has its own in it."""
    if model_dir is None:
        # A gin file of an experiment is called run.gin, and the folder tells which one it is.
        folder, name = os.path.split(os.path.splitext(gin_files[-1])[0])
        model_dir = os.path.join('runs', os.path.basename(folder) if name == 'run' and folder else name)
    return os.path.join(model_dir, 'overfit') if mode == 'overfit' else model_dir


def load_parts(plugin_specs: Sequence[str] = ()) -> None:
    """Registers the built-in parts, those of installed distributions, and the user's own; forgets earlier settings."""
    config.clear()
    plugins.load_builtins()
    plugins.load_entry_points()
    plugins.load(plugin_specs)


def build(model_dir: str, mode: str, engine: Engine, fresh: bool = False, request: Request | None = None) -> Experiment:
    """Builds everything that the mode needs, and refuses settings that nothing read.

    A request with pictures of its own does without the evaluation data.

    In the mode `overfit` it all happens in the gin scope of that name: `overfit/…` bindings count there alone.

    Raises:
      UserError: for mistakes in the settings or the data.
    """
    with config.scope('overfit') if mode == 'overfit' else contextlib.nullcontext():
        own_pictures = request is not None and request.pictures is not None
        experiment = config.injected('experiment')(
            model_dir=model_dir, mode=mode, engine=engine, fresh=fresh, own_pictures=own_pictures
        )
    if request is not None:
        kinds.check(experiment.task, experiment.settings, request.probabilities)
    if note := config.report_unused((*_IDLE[mode], *(_NO_DATA if own_pictures else ()))):
        logging.info('%s', note)
    return experiment
