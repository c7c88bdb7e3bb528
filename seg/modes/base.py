"""The contract of modes, which `--mode=<name>` on the command line and `mode='<name>'` of `seg.modes.run` run.

A module of this folder whose `MODE` is a subclass of `Mode` adds a mode, with its flags and its settings; nothing else
changes. `--help` and `--mode=report` import all of these modules, so they import Keras, a framework and gin inside
functions only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from absl import flags, logging

from seg.errors import UserError, did_you_mean
from seg.run.folder import RunFolder

if TYPE_CHECKING:
    from seg.engine.base import Engine
    from seg.experiment import Experiment, Needs


class Flag(NamedTuple):
    """A flag of the command line.

    Attributes:
      name: without dashes. A flag of a mode is an argument of `seg.modes.run` as well.
      define: absl's function, such as `flags.DEFINE_string`.
      default: the value if the flag is not given.
      help: the text of `--help`.
      elsewhere: hint for the message if a mode that does not take the flag gets it; may be empty.
    """

    name: str
    define: Callable[..., Any]
    default: Any
    help: str
    elsewhere: str = ''

    def spelled(self, value: Any) -> str:
        """The flag as written on the command line, with a value, or the values of a list."""
        if value is True:
            return f'--{self.name}'
        return f'--{self.name}={",".join(map(str, value)) if isinstance(value, list | tuple) else value}'


# Flags of all modes that build an experiment.
SETTINGS = (
    Flag('gin_file', flags.DEFINE_multi_string, [], 'Gin file with settings; may be given more than once.'),
    Flag(
        'gin_param',
        flags.DEFINE_multi_string,
        [],
        'A single binding that overrides those of the files, such as TRAIN_STEPS=200; may be given more than once.',
    ),
    Flag(
        'plugins',
        flags.DEFINE_list,
        [],
        'Your own parts: modules (pkg.mod) or files (path/file.py), separated by commas.',
    ),
    Flag(
        'engine',
        flags.DEFINE_string,
        'auto',
        'tensorflow, jax, or auto: JAX on machines with a TPU, TensorFlow elsewhere.',
    ),
    Flag(
        'strategy',
        flags.DEFINE_string,
        'auto',
        'Devices: auto or one; of TensorFlow also mirrored, or mirrored:N for N devices.',
    ),
    Flag(
        'coordinator',
        flags.DEFINE_string,
        None,
        'host:port of process 0, for a run on several machines (JAX only). Slurm, Kubernetes and Cloud TPU need none.',
    ),
    Flag('num_processes', flags.DEFINE_integer, None, 'Number of processes; with --coordinator.'),
    Flag('process_id', flags.DEFINE_integer, None, 'Number of this process, from 0; with --coordinator.'),
    Flag('precision', flags.DEFINE_string, 'auto', 'auto, float32 or bfloat16.'),
    Flag('jit', flags.DEFINE_string, 'auto', 'XLA for the step: auto (on for GPUs and with JAX), on, or off.'),
    Flag('deterministic', flags.DEFINE_bool, False, 'Gives bit-identical results in every run; somewhat slower.'),
    Flag('validate', flags.DEFINE_bool, False, 'Builds everything, checks data and settings, and runs nothing.'),
)
# Flags of several modes.
FRESH = Flag(
    'fresh',
    flags.DEFINE_bool,
    False,
    'Starts over: removes an earlier run from model_dir.',
    'It would remove the run in --model_dir, which this mode needs.',
)
CHECKPOINT = Flag(
    'checkpoint',
    flags.DEFINE_string,
    'latest',
    'Which weights: latest, best, or the path of a checkpoint.',
    'Training continues from the latest checkpoint; to start a new run from other weights, bind init.weights.',
)
WEIGHTS = Flag('weights', flags.DEFINE_string, '', 'ema or raw. Default: ema if the checkpoint has moving averages.')
TOPOLOGY = Flag(
    'topology',
    flags.DEFINE_string,
    '',
    'With --validate: compiles the steps for TPUs that need not be there, such as v3-8, and prints what they cost.',
)

# Bindings that only a training reads.
_OF_TRAININGS = ('optimizers.*', 'schedules.*', 'OptimizerStep.*', 'augments.*', 'init.*')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call of a mode.

    Attributes:
      model_dir: the run's directory; None for the mode's default.
      flags: values of the mode's own flags by name, defaults included.
      engine: makes the engine; called when everything is checked that needs no framework.
      gin_files: gin files, later ones override earlier ones.
      gin_params: single bindings.
      plugin_specs: modules or files with parts of the user.
      command: the command line; empty if there is none.
    """

    model_dir: str | None
    flags: Mapping[str, Any]
    engine: Callable[[], Engine]
    gin_files: Sequence[str] = ()
    gin_params: Sequence[str] = ()
    plugin_specs: Sequence[str] = ()
    command: Sequence[str] = ()


class Mode(ABC):
    """A mode; an instance is one call of it. The first line of its docstring is shown by `--help`.

    Attributes:
      name: the value of `--mode`.
      aliases: other words; --mode refuses them, and its message suggests the name.
      flags: what this mode takes besides `--mode` and `--model_dir`.
      common_flags: flags that it shares with most other modes.
      trains: whether it trains. A signal then ends it with a checkpoint and status 0.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[tuple[Flag, ...]] = ()
    common_flags: ClassVar[tuple[Flag, ...]] = ()
    trains: ClassVar[bool] = False

    def __init__(self, call: Call):
        self.call = call

    @abstractmethod
    def run(self) -> dict[str, Any] | None:
        """Does the work. Returns the results, which the command line prints; None for none."""

    def build(self) -> Experiment:
        """Builds what the mode runs, for notebooks."""
        raise UserError(f'--mode={self.name} builds nothing: use `seg.modes.run`.')

    @classmethod
    def failure(cls, results: dict[str, Any] | None) -> str | None:
        """The failure of a run that finished: the command line prints it and exits with status 1. None without one."""
        return None

    @classmethod
    def printed(cls, results: dict[str, Any]) -> str:
        """What the command line prints about the results, on standard output."""
        return json.dumps(results, indent=2)

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return inspect.cleandoc(cls.__doc__).splitlines()[0]

    @classmethod
    def directory(cls, gin_files: Sequence[str], model_dir: str | None) -> str:
        """The run's directory: `model_dir` if it is given, otherwise one named after the last gin file."""
        if model_dir is not None:
            return os.path.expanduser(model_dir)
        # If the gin file is called run.gin, its folder has the experiment's name.
        folder, name = os.path.split(os.path.splitext(gin_files[-1])[0])
        return os.path.join('runs', os.path.basename(folder) if name == 'run' and folder else name)


class ExperimentMode(Mode):
    """A mode that builds an experiment from gin settings, then runs it.

    In this order: `check_files`, `open_files`, `load_settings`, `build`, `prepare`; then `execute`, or for `--validate`
    `check_weights`. The engine is made after `check_files`, so that a mistake there is told at once.

    Attributes:
      needs_train_data: whether the training data are read. Otherwise the classes are those of the run in model_dir.
      needs_eval_data: whether the evaluation data are read.
      settings_type: a dataclass; gin binds its fields as `<name>.<field>`. None for no settings.
      scope: the gin scope in which everything is built: bindings `<scope>/…` hold in this mode only. Empty for none.
      subfolder: folder within the run's directory that this mode uses in its place; empty for none.
      idle: globs of bindings that this mode does not read, besides those that `idle_bindings` knows.
      folder: the run's directory.
      engine: the engine.
      settings: made by `build` from the bindings; None without `settings_type`.
      experiment: made by `build`.
    """

    common_flags = SETTINGS
    needs_train_data: ClassVar[bool] = False
    needs_eval_data: ClassVar[bool] = False
    settings_type: ClassVar[type | None] = None
    scope: ClassVar[str] = ''
    subfolder: ClassVar[str] = ''
    idle: ClassVar[tuple[str, ...]] = ()

    def __init__(self, call: Call):
        """Loads parts and settings.

        Raises:
          UserError: for the first mistake found.
        """
        super().__init__(call)
        self.check_files()
        self.engine = call.engine()
        self.open_files()
        self.folder = RunFolder(self.load_settings())
        self.settings: Any = None

    def prepare(self) -> None:
        """Refuses settings that cannot run or have no meaning. Nothing on disk changes.

        Raises:
          UserError: for the first fault.
        """

    @abstractmethod
    def execute(self) -> dict[str, Any] | None:
        """Does the work with `self.experiment`. Returns results that JSON can hold, or None."""

    def check_weights(self) -> None:
        """For `--validate`: refuses a checkpoint that `execute` could not use."""

    def run(self) -> dict[str, Any] | None:
        with self.ready():
            return self.execute()

    def validate(self) -> str:
        """Makes all checks of `run` before it begins. Returns the result in a line."""
        with self.ready(keep=False):
            self.check_weights()
            found = self.validated()
        return f'Valid: {found}; nothing was run.'

    def validated(self) -> str:
        """What `validate` found, in a few words."""
        from seg.run import settings

        info = self.experiment.info
        weights = settings.trainable(self.experiment.task.checkpoint_items.values())
        return f'{info.name}, {info.num_classes} classes, {weights}'

    @contextlib.contextmanager
    def ready(self, keep: bool = True) -> Iterator[None]:
        """Context that builds and checks everything; inside it the mode may begin.

        Args:
          keep: whether a directory that this makes stays.
        """
        from seg.executor.agreement import together

        with together(self.engine):
            self.build()
            self.prepare()
        yield

    @property
    def topology(self) -> str:
        """The value of `--topology`; empty for none."""
        return self.call.flags.get('topology', '')

    @property
    def described(self) -> bool:
        """Whether descriptions of data sets will do, in place of their files."""
        return bool(self.topology)

    # ---- Settings ----------------------------------------------------------------------------------------------------

    @classmethod
    def directory(cls, gin_files: Sequence[str], model_dir: str | None) -> str:
        directory = super().directory(gin_files, model_dir)
        return os.path.join(directory, cls.subfolder) if cls.subfolder else directory

    def check_files(self) -> None:
        """Refuses files that are missing, and gin files with mistakes of syntax. Loads no framework and no plugin.

        Raises:
          UserError: for the first mistake.
        """
        from seg import gin_statements, plugins

        for spec in self.call.plugin_specs:
            if spec.endswith('.py'):
                plugins.find_file(spec, '--plugins')
        gin_statements.check_syntax(self.gin_files(), self.call.gin_params)

    def gin_files(self) -> Sequence[str]:
        """The gin files of the call; without any the settings that the run in `model_dir` was trained with.

        Raises:
          UserError: if there is neither.
        """
        call = self.call
        if call.gin_files:
            return call.gin_files
        need = 'No settings: give --gin_file=…, such as --gin_file=gin/deeplab_shapes.gin.'
        snapshot = RunFolder(os.path.expanduser(call.model_dir or '')).config
        trained = call.model_dir is not None and os.path.exists(snapshot)
        if self.trains:
            own = f' Those of the run in --model_dir={call.model_dir} are in {snapshot}.' if trained else ''
            raise UserError(f'{need}{own} seg_main --help lists modes and flags.')
        if call.model_dir is None:
            raise UserError(f'{need} Or give the --model_dir of a training: --mode={self.name} reads its settings.')
        if not trained:
            hints = did_you_mean(call.model_dir)
            raise UserError(
                f'--model_dir={call.model_dir}: no run was trained there: {snapshot} is missing.{hints} Or give '
                'settings: --gin_file=….'
            )
        return [snapshot]

    def open_files(self) -> None:
        """Opens files besides the settings that the mode needs, once there is an engine."""

    def load_settings(self) -> str:
        """Loads all plugins, parses the settings and locks them. Returns the run's directory."""
        from seg import config, modes

        call, gin_files = self.call, self.gin_files()
        modes.load_parts(call.plugin_specs)
        config.parse(gin_files, call.gin_params, {'DATA_DIR': None} if self.described else {})
        return self.directory(gin_files, call.model_dir)

    def needs(self) -> Needs:
        """Returns what to build for this call."""
        from seg.experiment import Needs

        return Needs(trains=self.trains, train_data=self.needs_train_data, eval_data=self.needs_eval_data)

    def build(self) -> Experiment:
        """Builds everything that the mode needs, and refuses unused bindings.

        Raises:
          UserError: for mistakes in the settings or the data.
        """
        from seg import config

        with config.scope(self.scope) if self.scope else contextlib.nullcontext():
            self.settings = self.read_settings()
            needs = self.needs()
            self.experiment = config.injected('experiment')(model_dir=self.folder.path, engine=self.engine, needs=needs)
        self.check_experiment()
        if note := config.report_unused(self.idle_bindings(needs)):
            logging.info('%s', note)
        return self.experiment

    def read_settings(self) -> Any:
        """Returns the mode's own settings, None if it has none."""
        from seg import config

        return config.injected(self.name)() if self.settings_type else None

    def check_experiment(self) -> None:
        """Refuses flags and settings of the mode that do not fit the experiment."""

    def idle_bindings(self, needs: Needs) -> list[str]:
        """Globs of the bindings that this call does not read, besides those of parts that it does not build."""
        from seg import config, modes

        idle = list(self.idle)
        if not needs.train_data:
            idle.append(f'{config.TRAIN_SCOPE}/*')
        if not needs.eval_data:
            idle.append(f'{config.EVAL_SCOPE}/*')
        if not (needs.train_data or needs.eval_data):
            idle.append('datasets.*')
        if not needs.trains:
            idle += _OF_TRAININGS
        for other in modes.table().values():
            if issubclass(other, ExperimentMode) and other is not type(self):
                idle += [f'{other.name}.*'] if other.settings_type else []
                idle += [f'{other.scope}/*'] if other.scope else []
        return idle
