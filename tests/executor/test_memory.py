"""The memory of a long run: images of past evaluations are let go."""

import json

import numpy as np
import pytest

from seg.engine import precision
from tests.executor import linear

EVALUATIONS = 40


@pytest.mark.slow
def test_forty_evaluations_with_images(tmp_path, monkeypatch):
    """Each draws 12 images of 0.75 MB; kept, they would be 315 MB from the 5th evaluation to the 40th."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    monkeypatch.setattr(linear.Drawing, 'draw', lambda self: pixels + np.uint8(self._row))
    precision.set_precision('float64')
    try:
        made = linear.executor(
            tmp_path,
            train_steps=2 * EVALUATIONS,
            eval_every=2,
            save_checkpoints_steps=2,
            keep_checkpoint_max=2,
            num_pictures=4,
        )
        made.train_and_evaluate(
            linear.training_input(linear.Table()), linear.evaluation_input(linear.Table(24, split='val'))
        )
    finally:
        precision.set_precision('float32')
    lines = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
    used = [line['host_memory_mb'] for line in lines if line['kind'] == 'train']  # Each before its evaluation.
    print(f'host memory before the 5th, 10th, 20th, 40th evaluation: {[round(used[i]) for i in (4, 9, 19, 39)]} MB')
    assert used[39] - used[4] < 30
