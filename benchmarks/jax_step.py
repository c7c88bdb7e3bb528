"""Times training steps and inference of the models under JAX and of peers in torch, alternately on one GPU (or a CPU).

    python benchmarks/jax_step.py --what train infer --nets deeplab mask_rcnn --batches 8 16

This script does not use the engine: it runs the models and losses, which name no backend, as one pure function that XLA
compiles (`KERAS_BACKEND=jax`; TensorFlow is neither needed nor loaded). It needs keras, gin-config, safetensors, psutil
and a jax for the device. The peers need torch, torchvision and segmentation_models_pytorch; `--sides ours` does not.
Networks, batches and steps are those of `benchmarks/deeplab.py` and `benchmarks/mask_rcnn.py`, whose headers explain
how the two sides differ, with two exceptions: the optimizer is this project's SGD, and the batch is on the device.

The peers' weights are channels-last; in bfloat16 they run under `torch.autocast`, ours under `mixed_bfloat16`. In
float32 both sides may multiply in TF32, which is JAX's default, but not torch's. Side `peer_compiled` is DeepLab's peer
after `torch.compile`. Each side has its own process. They run alternately, a few steps at a time, and then wait once
for the device. The output has the median and the range of the rounds, the ratio of two successive ones, and memory:
ours as planned by the compiler (arguments, results and temporaries), the peer's as measured by torch's allocator. One
line of JSON per number goes to the file `--out`.

    JAX_PLATFORMS=cpu python benchmarks/jax_step.py --check cpu.json
    python benchmarks/jax_step.py --check cpu.json

compares losses and gradient norms of one step in float32, with products in full precision: the first call writes the
file, and the second, on another device, reads it.

Results of one NVIDIA H100 80GB HBM3 (jax 0.11.2, keras 3.15.1; torch 2.11.0+cu130), bfloat16, 5 rounds, at commit
2c3d52c; images per second, and the median and range of our seconds over the peer's:

    --nets mask_rcnn --batches 4 --steps 5    train 86.5, peer 38.1: 0.44 (one round 0.08, the others up to 0.46)
                                              infer 293, peer 79.3: 0.26 (0.24 to 0.29)
    --nets deeplab --batches 16               train 384, peer 339: 0.884 (0.881 to 0.886)
                                              infer 1,577, peer 1,050: 0.67 (0.65 to 0.68)

XLA compiled the training steps in 48 s and 74 s. Memory in GB, ours and the peer's: 4.75 and 5.63, 7.12 and 6.98 in
training; 0.99 and 2.28, 1.06 and 1.91 in inference. In the round with ratio 0.08 the R-CNN peer was slow (7.1 images
per second). `--check` of that machine's CPU against the GPU: losses within 6e-7, except the RPN's box loss, 3e-4;
gradient norms within 9e-4; the same 256 positive ROIs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import deeplab
import mask_rcnn

SIZES = {'deeplab': 512, 'mask_rcnn': 1024}  # DeepLab's peer takes multiples of 16 only.
CHECKED = {'deeplab': 257, 'mask_rcnn': 512}  # Smaller, because a CPU computes it as well; with 2 images.
WARM_UP = 3


class Ours:
    """This project's models, losses and SGD."""

    def __init__(self):
        self.built = None

    def build(self, net: str, precision: str) -> None:
        """Makes the network and its state, unless they exist."""
        import keras

        if self.built == (net, precision):
            return
        keras.config.set_dtype_policy('mixed_bfloat16' if precision == 'bfloat16' else precision)
        keras.utils.set_random_seed(0)
        if net == 'deeplab':
            self.model, self.terms = deeplab.our_model()
        else:
            self.model, self.terms = mask_rcnn.our_model()
        self.built = (net, precision)

    def batch(self, net: str, batch: int, size: int) -> dict:
        """The model's input, and the labels as `label` if they are not a part of it; on the device."""
        import jax
        import numpy as np

        shape = argparse.Namespace(batch=batch, size=size)
        if net == 'mask_rcnn':
            return jax.device_put(mask_rcnn.our_batch(shape))
        image, label = deeplab.random_batch(shape)
        sizes, seed = np.full((batch, 2), size, np.int32), np.arange(2 * batch, dtype=np.int32).reshape(-1, 2)
        return jax.device_put({'image': image, 'label': label, 'size': sizes, 'seed': seed})

    def losses(self, trained: list, fixed: list, batch: dict) -> tuple:
        """Returns the sum of the losses, and `(losses, positive regions, fixed)` with moved averages in the last."""
        from keras import ops

        outputs, fixed = self.model.stateless_call(trained, fixed, batch, training=True)
        regions = outputs['boxes'][0]['classes'] if 'boxes' in outputs else ops.zeros(0)
        terms = self.terms(outputs, batch)
        losses = ops.stack([ops.sum(term.total) / ops.sum(term.weight) for term in terms])
        return ops.sum(losses), (losses, ops.sum(regions > 0), fixed)

    def prepare(self, net: str, what: str, precision: str, batch: int, size: int) -> dict:
        """Compiles a step; returns facts about it."""
        import jax
        import keras
        from keras import ops

        from seg.optimizers.sgd import SGD

        self.state = self.result = self.step = None  # Frees the memory of the previous case.
        start = time.perf_counter()
        self.build(net, precision)
        model, data = self.model, self.batch(net, batch, size)
        module = deeplab if net == 'deeplab' else mask_rcnn
        optimizer = SGD(module.LEARNING_RATE, momentum=module.MOMENTUM)
        optimizer.build(model.trainable_variables)
        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        state = jax.tree.map(lambda v: v.value.copy(), variables)

        def train(state: tuple, data: dict) -> tuple:
            trained, fixed, slots = state
            gradients, (losses, regions, fixed) = jax.grad(self.losses, has_aux=True)(trained, fixed, data)
            trained, slots = optimizer.stateless_apply(slots, gradients, trained)
            return (trained, fixed, slots), (losses, regions)

        def infer(state: tuple, data: dict) -> tuple:
            outputs, _ = model.stateless_call(state[0], state[1], data, training=False)
            found = ops.sum(outputs['classes'] >= 0) if 'classes' in outputs else 0
            return state, (outputs, found)

        built = time.perf_counter()
        lowered = jax.jit(train if what == 'train' else infer, donate_argnums=0).lower(state, data)
        traced = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - traced
        plan = compiled.memory_analysis()
        planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        self.compiled, self.state = compiled, state

        def step() -> None:
            self.state, self.result = compiled(self.state, data)

        self.step = step
        self.run(WARM_UP)
        return {
            'versions': f'jax {jax.__version__}, keras {keras.__version__}',
            'device': jax.devices()[0].device_kind,
            'weights': sum(v.size for v in state[0] + state[1]),
            'build_seconds': built - start,
            'trace_seconds': traced - built,
            'compile_seconds': seconds,
            'gigabytes': (planned - plan.alias_size_in_bytes) / 1e9,
            'objects': int(self.result[1]) / batch,
        }

    def run(self, steps: int) -> None:
        import jax

        for _ in range(steps):
            self.step()
        jax.block_until_ready(self.result)

    def check(self, net: str, batch: int, size: int) -> dict:
        """Returns losses and norms of the gradients of each part, of one step in float32."""
        import jax
        import jax.numpy as jnp

        self.state = self.result = self.step = None
        self.build(net, 'float32')
        parts = {id(v): name for name, part in self.model.parts.items() for v in part.trainable_variables}
        names = [parts[id(v)] for v in self.model.trainable_variables]
        values = [[v.value for v in vs] for vs in (self.model.trainable_variables, self.model.non_trainable_variables)]

        def step(trained: list, fixed: list, data: dict) -> tuple:
            gradients, (losses, regions, _) = jax.grad(self.losses, has_aux=True)(trained, fixed, data)
            squares = [jnp.sum(jnp.square(g)) for g in gradients]
            norms = {n: jnp.sqrt(sum(s for s, own in zip(squares, names, strict=True) if own == n)) for n in {*names}}
            return losses, regions, norms

        with jax.default_matmul_precision('highest'):
            losses, regions, norms = jax.jit(step)(*values, self.batch(net, batch, size))
        facts = {f'{net} loss {i}': float(loss) for i, loss in enumerate(losses)}
        facts |= {f'{net} gradient of {name}': float(norm) for name, norm in sorted(norms.items())}
        return facts | {f'{net} positive regions': float(regions)}


class Peer:
    """torchvision's Mask R-CNN, and segmentation_models_pytorch's DeepLab v3+."""

    compiled = False

    def prepare(self, net: str, what: str, precision: str, batch: int, size: int) -> dict:
        import torch

        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.finish = torch.cuda.synchronize if device == 'cuda' else lambda: None
        self.step = self.result = None
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.cuda.empty_cache()
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        shape = argparse.Namespace(batch=batch, size=size)
        model, inputs, loss_of, count = (self.deeplab if net == 'deeplab' else self.mask_rcnn)(shape, device)
        model = model.to(device, memory_format=torch.channels_last)
        module = deeplab if net == 'deeplab' else mask_rcnn
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, module.LEARNING_RATE, momentum=module.MOMENTUM)
        run = torch.compile(model) if self.compiled else model
        model.train(what == 'train')
        cast = torch.autocast(device, torch.bfloat16, enabled=precision == 'bfloat16')

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            with cast:
                outputs = run(*inputs)
            self.result = loss_of(outputs)
            self.result.backward()
            optimizer.step()

        def infer() -> None:
            with torch.inference_mode(), cast:
                self.result = run(*inputs)

        self.step = train if what == 'train' else infer
        self.run(WARM_UP)
        return {
            'versions': f'torch {torch.__version__}',
            'weights': sum(v.numel() for v in model.state_dict().values()),
            'compile_seconds': time.perf_counter() - start,
            'gigabytes': torch.cuda.max_memory_allocated() / 1e9 if device == 'cuda' else 0,
            'objects': count(self.result) / batch,
        }

    def deeplab(self, shape: argparse.Namespace, device: str) -> tuple:
        """Network, inputs, a function from outputs to the loss, and one from results to the number of detections."""
        import torch

        torch.manual_seed(0)
        image, label = deeplab.random_batch(shape)
        image = ((torch.from_numpy(image).to(device) - 127.5) / 64).permute(0, 3, 1, 2)  # Channels-last already.
        label = torch.from_numpy(label).long().to(device)
        return (
            deeplab.peer_model(),
            [image],
            lambda logits: torch.nn.functional.cross_entropy(logits.float(), label),
            lambda result: 0,
        )

    def mask_rcnn(self, shape: argparse.Namespace, device: str) -> tuple:
        """See `deeplab`."""
        import torch

        if self.compiled:
            raise NotImplementedError('its shapes depend on its detections')
        model = mask_rcnn.torchvision_model(shape.size)
        model.load_state_dict(torch.load(os.environ[mask_rcnn.WEIGHTS]))
        image, targets = mask_rcnn.peer_batch(shape, torch.channels_last, device)
        positives: list[int] = []
        sample = model.roi_heads.select_training_samples

        def counted(*arguments: Any) -> tuple:
            result = sample(*arguments)
            positives[:] = [sum(int((labels > 0).sum()) for labels in result[2])] if not positives else positives
            return result

        model.roi_heads.select_training_samples = counted

        def count(result: Any) -> int:
            return positives[0] if positives else sum(len(found['labels']) for found in result)

        return model, [image, targets], lambda outputs: sum(outputs.values()), count

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.finish()


class PeerCompiled(Peer):
    """The same after `torch.compile`."""

    compiled = True


SIDES = {'ours': Ours, 'peer': Peer, 'peer_compiled': PeerCompiled}


def serve(name: str) -> None:
    """Answers requests, one line of JSON each: `{method: its arguments}`. The seconds it took are in the answer."""
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # The output of the libraries goes to standard error.
    side = SIDES[name]()
    for line in sys.stdin:
        ((method, settings),) = json.loads(line).items()
        start = time.perf_counter()
        try:
            answer = getattr(side, method)(**settings) or {}
        except Exception as e:  # For instance a batch that is too large: the other cases continue.
            answer = {'error': f'{type(e).__name__}: {str(e)[:400]}'}
        answers.write(json.dumps({'seconds': time.perf_counter() - start, **answer}) + '\n')


class Worker:
    """The process of one side."""

    def __init__(self, name: str):
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        environment = {
            'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.5',  # The peer uses the other half of a GPU.
            **os.environ,
            'KERAS_BACKEND': 'jax',
            'PYTHONPATH': os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])]),
        }
        command = [sys.executable, os.path.abspath(__file__), '--worker', name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, method: str, **settings: Any) -> dict:
        self.process.stdin.write(json.dumps({method: settings}) + '\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {'error': 'the process ended: see its message above'}


def compare(workers: dict[str, Worker], case: dict, arguments: argparse.Namespace) -> None:
    """Times all sides in one case, and prints the results."""
    facts = {name: worker('prepare', **case) for name, worker in workers.items()}
    rounds: dict[str, list] = {name: [] for name in workers if 'error' not in facts[name]}
    for i in range(arguments.rounds):
        # The first side of a round is the last one of the previous round, so that the order alternates.
        for name in list(rounds)[:: 1 if i % 2 else -1]:
            rounds[name].append(workers[name]('run', steps=arguments.steps)['seconds'] / arguments.steps)
    for name in workers:
        figure = {**case, 'side': name, **facts[name]}
        if name in rounds:
            rates = [case['batch'] / seconds for seconds in rounds[name]]
            figure |= {'images_per_second': statistics.median(rates), 'range': [min(rates), max(rates)]}
            if 'ours' in rounds and name != 'ours':
                ratios = [mine / seconds for mine, seconds in zip(rounds['ours'], rounds[name], strict=True)]
                figure |= {'ours_to_it': statistics.median(ratios), 'ratios': [min(ratios), max(ratios)]}
        shown = {key: float(f'{value:.4g}') if isinstance(value, float) else value for key, value in figure.items()}
        print(json.dumps(shown), flush=True)
        if arguments.out:
            with open(arguments.out, 'a', encoding='utf-8') as file:
                file.write(json.dumps(figure) + '\n')


def check(path: str, nets: list[str]) -> None:
    """Writes one step's losses and norms of gradients, or compares them with those of the file."""
    worker = Worker('ours')
    facts: dict[str, Any] = {}
    for net in nets:
        facts |= worker('check', net=net, batch=2, size=CHECKED[net])
    if not os.path.exists(path):
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(facts, file, indent=1)
    with open(path, encoding='utf-8') as file:
        others = json.load(file)
    for name, value in facts.items():
        apart = f'apart {abs(value - others[name]) / abs(others[name] or 1):.1e}' if name in others else value
        print(f'{name}: {value}, {apart}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--nets', nargs='+', default=list(SIZES), choices=list(SIZES))
    parser.add_argument('--what', nargs='+', default=['train', 'infer'], choices=['train', 'infer'])
    parser.add_argument('--precisions', nargs='+', default=['bfloat16'], choices=['float32', 'bfloat16'])
    parser.add_argument('--batches', nargs='+', type=int, default=[8], help='smaller ones first')
    parser.add_argument('--size', type=int, help='side of the images; 512 and 1024 if not given')
    parser.add_argument('--sides', nargs='+', default=['ours', 'peer'], choices=list(SIDES))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=10, help='of each side per round')
    parser.add_argument('--out', help='file to which results are appended')
    parser.add_argument('--check', metavar='FILE', help='compare one step with that of another device')
    parser.add_argument('--worker', choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        if 'mask_rcnn' in arguments.nets and mask_rcnn.WEIGHTS not in os.environ:
            os.environ[mask_rcnn.WEIGHTS] = path = os.path.join(folder, 'maskrcnn.pth')
            subprocess.run([sys.executable, mask_rcnn.__file__, 'weights', path], check=True)
        if arguments.check:
            check(arguments.check, arguments.nets)
            return
        workers = {name: Worker(name) for name in arguments.sides}
        for net in arguments.nets:
            for precision in arguments.precisions:
                for batch in arguments.batches:
                    for what in arguments.what:
                        size = arguments.size or SIZES[net]
                        case = {'net': net, 'what': what, 'precision': precision, 'batch': batch, 'size': size}
                        compare(workers, case, arguments)
        for worker in workers.values():
            worker.process.stdin.close()
            worker.process.wait()


if __name__ == '__main__':
    main()
