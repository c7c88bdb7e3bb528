"""DeepLab v3+ here and in segmentation_models_pytorch: the time of a training step and of inference, in turns.

    python benchmarks/deeplab.py

The peer is no requirement of this project. Beside what the project installs, this wants

    python -m pip install torch==2.14.1 segmentation-models-pytorch==0.6.0

(torch's build for the CPU, or any: GPUs are hidden from it); `--sides ours` does without.

Both sides are DeepLab v3+ on ResNet-50 at output stride 16, with new weights: separable convolutions of 256 channels in
a pyramid of rates 12, 24 and 36 and in the decoder, 48 channels of the low-level map, 21 classes, logits at the image's
resolution. They take the same random batch of 2 images of 512 x 512 pixels. A training step is: forward with batch
statistics and dropout, cross-entropy in float32, backward, SGD with momentum. Inference gives logits. In bfloat16 ours
runs under Keras' `mixed_bfloat16`, the peer under `torch.autocast`. The peer's weights and images are channels-last.

What differs between the networks is counted in the printed number of weights: ours normalises and rectifies between the
depthwise and the pointwise half of a separable convolution and has two of them after the join of the two maps, as in
the paper's code; the peer has none between, one after the join, and one at stride 16 after the pyramid. A third of the
peer's inference in float32 are the dilated depthwise convolutions, for which its library has no fast kernel.

Each side lives in a process of its own, since the thread pools of the two libraries get into each other's way within
one; they are driven in turn, so that only one computes at a time and a change in the machine's speed hits both.
Every ratio is that of two times measured next to each other. Company on the machine costs threads that wait for
each other more than its share, and the peer more than ours: a round in which other processes took more than `--company`
of the processors' time is measured again, at most as many times as there are rounds, and the figures say how much
company there was. Where there is no quiet, the ratio of processor times with `--threads 1` is the one to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil

CLASSES = 21
ASPP_RATES = (12, 24, 36)
ASPP_DROPOUT = 0.5
LEARNING_RATE, MOMENTUM = 0.007, 0.9
TARGETS = {
    ('train', 'float32'): 0.80,
    ('infer', 'float32'): 0.95,
    ('train', 'bfloat16'): 1.0,
    ('infer', 'bfloat16'): 1.05,
}


class Ours:
    """This project's model, loss and Keras' SGD, each step one `tf.function`."""

    def __init__(self, arguments: argparse.Namespace):
        import keras
        import numpy as np
        import tensorflow as tf

        from seg.backbones.resnet import resnet50
        from seg.decoders.deeplab_v3plus import deeplab_v3plus as decoder_parts
        from seg.executor.hardware import set_precision
        from seg.heads.semantic import semantic
        from seg.losses.softmax_cross_entropy import softmax_cross_entropy
        from seg.models.deeplab_v3plus import deeplab_v3plus
        from seg.registry import decoders, temporary

        tf.config.set_visible_devices([], 'GPU')
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        set_precision(arguments.precision)
        with temporary():

            @decoders.register('like_the_peer')
            def decoder(*, backbone, output_stride, norm):
                """The decoder with the peer's settings."""
                settings = {'separable': True, 'rates': ASPP_RATES, 'dropout': ASPP_DROPOUT}
                return decoder_parts(backbone=backbone, output_stride=output_stride, norm=norm, **settings)

            self.model = model = deeplab_v3plus(num_classes=CLASSES, backbone=resnet50, decoder=decoder, head=semantic)
        loss = softmax_cross_entropy(num_classes=CLASSES, ignore_label=255, class_histogram=lambda: None)
        variables = model.trainable_variables
        optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
        optimizer.build(variables)

        image, label = random_batch(arguments)
        size = np.full((arguments.batch, 2), arguments.size, np.int32)
        seed = np.arange(2 * arguments.batch, dtype=np.int32).reshape(-1, 2)
        inputs = {'image': tf.constant(image), 'size': tf.constant(size), 'seed': tf.constant(seed)}
        label = tf.constant(label)

        @tf.function
        def train(inputs, label):
            with tf.GradientTape() as tape:
                term = loss(label, model(inputs, training=True)['logits'], 0)
                mean = tf.reduce_sum(term.total) / tf.reduce_sum(term.weight)
            optimizer.apply(tape.gradient(mean, [v.value for v in variables]), variables)
            return mean

        @tf.function
        def infer(inputs):
            return model(inputs, training=False)['logits']

        self.train = lambda: float(train(inputs, label))
        self.infer = lambda: infer(inputs)[0, 0, 0, 0].numpy()
        self.weights = sum(int(np.prod(v.shape)) for v in variables)
        self.versions = f'tensorflow {tf.__version__}, keras {keras.__version__}'


class Peer:
    """segmentation_models_pytorch's model, run eagerly."""

    def __init__(self, arguments: argparse.Namespace):
        import segmentation_models_pytorch as smp
        import torch

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        model = smp.DeepLabV3Plus(
            encoder_name='resnet50',
            encoder_weights=None,
            encoder_output_stride=16,
            decoder_channels=256,
            decoder_atrous_rates=ASPP_RATES,
            decoder_aspp_separable=True,
            decoder_aspp_dropout=ASPP_DROPOUT,
            classes=CLASSES,
        ).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)
        image, label = random_batch(arguments)
        image = (torch.from_numpy(image) - 127.5) / 64
        image = image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        label = torch.from_numpy(label).long()
        bfloat16 = arguments.precision == 'bfloat16'

        def train() -> float:
            model.train()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                logits = model(image)
            loss = torch.nn.functional.cross_entropy(logits.float(), label)
            loss.backward()
            optimizer.step()
            return loss.item()

        def infer() -> float:
            model.eval()
            with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                return model(image)[0, 0, 0, 0].item()

        self.train, self.infer = train, infer
        self.weights = sum(p.numel() for p in model.parameters())
        self.versions = f'torch {torch.__version__}, segmentation_models_pytorch {smp.__version__}'


SIDES = {'ours': Ours, 'peer': Peer}


def random_batch(arguments: argparse.Namespace) -> tuple:
    """Images [B, S, S, 3] float32 0..255 and labels [B, S, S] int32."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size)
    return rng.uniform(0, 255, (*shape, 3)).astype(np.float32), rng.integers(0, CLASSES, shape).astype(np.int32)


def work(arguments: argparse.Namespace) -> None:
    """Serves one side: reads `<what> <times>`, answers with the seconds of each run, by the clock and of processor."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # What the libraries print belongs elsewhere.
    side = SIDES[arguments.worker](arguments)
    answers.write(json.dumps({'weights': side.weights, 'versions': side.versions}) + '\n')
    for line in sys.stdin:
        what, times = line.split()
        run: Callable[[], float] = getattr(side, what)
        seconds = []
        for _ in range(int(times)):
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            seconds.append((time.perf_counter() - start, time.process_time() - start_cpu))
        answers.write(json.dumps(seconds) + '\n')


class Measured(NamedTuple):
    """Medians of a few runs.

    Attributes:
      clock: seconds per run.
      processor: seconds of processor time per run, all threads together.
      company: the other processes' share of the processors meanwhile.
    """

    clock: float
    processor: float
    company: float


class Worker:
    """The process of one side."""

    def __init__(self, name: str, precision: str, arguments: argparse.Namespace):
        self.name = name
        command = [sys.executable, os.path.abspath(__file__), '--worker', name, '--precisions', precision]
        for key in ('threads', 'size', 'batch'):
            command += [f'--{key}', str(getattr(arguments, key))]
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
        environment = {
            **os.environ,
            'PYTHONPATH': os.pathsep.join(paths),
            'TF_CPP_MIN_LOG_LEVEL': '3',
            'OMP_NUM_THREADS': str(arguments.threads),
            'CUDA_VISIBLE_DEVICES': '',
        }
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.usage = psutil.Process(self.process.pid)
        self.facts = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'The process of side {self.name} ended: see its message above.')
        return json.loads(line)

    def __call__(self, what: str, times: int) -> Measured:
        """Runs one side so many times."""
        before = self._used()
        self.process.stdin.write(f'{what} {times}\n')
        self.process.stdin.flush()
        runs = self._read()
        others, total = (after - start for after, start in zip(self._used(), before, strict=True))
        clock, processor = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
        return Measured(clock, processor, max(0.0, others) / max(total, 1e-9))

    def _used(self) -> tuple[float, float]:
        """Processor seconds so far: those that all other processes took, and all that there were."""
        machine, own = psutil.cpu_times(), self.usage.cpu_times()
        total = sum(machine)
        return total - machine.idle - getattr(machine, 'iowait', 0.0) - own.user - own.system, total

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f'{statistics.median(values):.3f} (from {min(values):.3f} to {max(values):.3f})'


def compare(precision: str, arguments: argparse.Namespace) -> None:
    """Times both sides in one precision and prints what came out."""
    workers = [Worker(name, precision, arguments) for name in arguments.sides]
    for worker in workers:
        print(f'{worker.name}: {worker.facts["versions"]}; {worker.facts["weights"]:,} weights', flush=True)
    for what in arguments.what:
        for worker in workers:
            worker(what, 2)
        rounds = measure(workers, what, arguments)
        title = f'{what} {precision}'
        print(f'{title}: company {spread(max(side.company for side in round.values()) for round in rounds)}')
        for name in arguments.sides:
            print(f'{title} {name}: seconds per step {spread(round[name].clock for round in rounds)}', flush=True)
        if len(workers) == 2:
            clock = spread(round['ours'].clock / round['peer'].clock for round in rounds)
            processor = spread(round['ours'].processor / round['peer'].processor for round in rounds)
            print(f'{title}: ours / peer {clock}, aim {TARGETS[what, precision]:.2f}; of processor time {processor}')
    for worker in workers:
        worker.close()


def measure(workers: list[Worker], what: str, arguments: argparse.Namespace) -> list[dict[str, Measured]]:
    """Returns what each side took, per round."""
    rounds: list[dict[str, Measured]] = []
    for attempt in range(2 * arguments.rounds):
        # The first of a round is the last of the one before: neither side always has the other's wake.
        order = workers if attempt % 2 else workers[::-1]
        measured = {worker.name: worker(what, arguments.steps) for worker in order}
        disturbed = max(side.company for side in measured.values()) > arguments.company
        if disturbed and attempt < arguments.rounds + len(rounds):
            continue  # There are attempts left for all rounds that are missing.
        rounds.append(measured)
        if len(rounds) == arguments.rounds:
            break
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=3, help='steps of each side per round; their median counts')
    parser.add_argument('--company', type=float, default=0.05, help="other processes' share that a round may have")
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--precisions', nargs='+', default=['float32', 'bfloat16'], choices=['float32', 'bfloat16'])
    parser.add_argument('--what', nargs='+', default=['train', 'infer'], choices=['train', 'infer'])
    parser.add_argument('--sides', nargs='+', default=list(SIDES), choices=list(SIDES))
    parser.add_argument('--worker', choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        (arguments.precision,) = arguments.precisions
        work(arguments)
        return
    for precision in arguments.precisions:
        compare(precision, arguments)


if __name__ == '__main__':
    main()
