"""Settings of a run: its length, its periods and its directory."""

from __future__ import annotations

import dataclasses

from seg.errors import UserError
from seg.number_checks import check_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Length, batch sizes and periods of a run. All periods are in steps, all batch sizes are global.

    Attributes:
      model_dir: the run's directory, its only state.
      train_steps: optimizer steps of the whole training.
      batch_size: images of one training step over all replicas.
      eval_batch_size: images of one evaluation step; None for `batch_size`. It does not change any result. On a CPU in
        float32 a batch of one image takes three to four times as long per image (see docs/design.md).
      iterations_per_loop: steps that run on the device in one call.
      save_checkpoints_steps: a checkpoint at least this often, and before every evaluation.
      keep_checkpoint_max: number of checkpoints to keep, without `best/`; older ones are removed.
      eval_every: an evaluation this often, and after the last step.
      best_metric: the evaluation metric whose best value picks `best/`: the highest one, or of a loss or an error the
        lowest.
      patience: the training ends early after this many evaluations in a row without a better value of `best_metric`;
        None to train all steps.
      num_pictures: images that are drawn for TensorBoard: the first training examples, and evaluation images of each
        kind (fixed, worst, best); 0 for no figures and no charts.
      seed: determines all random numbers.
    """

    model_dir: str
    train_steps: int
    batch_size: int
    eval_batch_size: int | None = None
    iterations_per_loop: int = 100
    save_checkpoints_steps: int = 1000
    keep_checkpoint_max: int = 5
    eval_every: int = 1000
    best_metric: str = 'miou'
    patience: int | None = None
    num_pictures: int = 4
    seed: int = 0

    def __post_init__(self):
        for name in (
            'train_steps',
            'batch_size',
            'iterations_per_loop',
            'save_checkpoints_steps',
            'eval_every',
            'keep_checkpoint_max',
        ):
            check_whole(f'RunConfig.{name}', getattr(self, name))
        for name in ('eval_batch_size', 'patience'):
            if getattr(self, name) is not None:
                check_whole(f'RunConfig.{name}', getattr(self, name))
        for name in ('num_pictures', 'seed'):
            check_whole(f'RunConfig.{name}', getattr(self, name), 0, 2**31 - 1)
        for name in ('save_checkpoints_steps', 'eval_every'):
            value = getattr(self, name)
            # A period beyond the end has no effect: short trials of a long recipe need no other settings.
            if value < self.train_steps and value % self.iterations_per_loop:
                raise UserError(
                    f'RunConfig.{name} = {value} is not a multiple of RunConfig.iterations_per_loop = '
                    f'{self.iterations_per_loop}: the host acts only every {self.iterations_per_loop} steps. '
                    f'Set {name} = {-(-value // self.iterations_per_loop) * self.iterations_per_loop}, or another '
                    'iterations_per_loop.'
                )

    def per_replica(self, batch_size: int, num_replicas: int, name: str) -> int:
        """Returns the images per replica; raises UserError if the batch size does not divide."""
        if batch_size % num_replicas:
            below = batch_size // num_replicas * num_replicas
            choices = ' or '.join(str(n) for n in (below, below + num_replicas) if n)
            raise UserError(
                f'RunConfig.{name} = {batch_size} does not divide among {num_replicas} replicas. Batch sizes are '
                f'global: use {choices}.'
            )
        return batch_size // num_replicas

    @property
    def evaluation_batch_size(self) -> int:
        return self.eval_batch_size or self.batch_size
