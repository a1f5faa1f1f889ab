"""Half precision against fp32 over dozens of steps, and a process group of one rank: nccl on a GPU, gloo on the CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as distributed
from _common import must_be_equal, paired_ratio, rounded
from _gpu_clock import peak_mib, timed
from _gpu_running import Aim, Record
from _gpu_step import (
    Training,
    comparable,
    compose_trainer,
    difference,
    gradient_difference,
    images,
    rates_of,
    small_model,
    without_gan,
)

ALMOST = 1e-5  # tolerance for kernels with a nondeterministic order of summation
RATE = 2e-4  # losses fall within few steps without jumps; with 1e-3 the curves differed by 4 to 7 % after 40 steps
AIMS = {'bf16': Aim('figure', 2.0, most=True), 'fp16': Aim('figure', 2.0, most=True)}


def precision(record: Record) -> None:
    """Loss curves of a small tokenizer in each precision, with the same seed and images."""
    quick = record.quick
    steps, count, width, size = (6, 4, 8, 32) if quick else (60, 32, 32, 64)
    model = without_gan(small_model(width))
    batches = [images(count, size, seed).to(record.device) for seed in range(4)]
    curves = {}
    for name in ('fp32', 'bf16', 'fp16'):
        side = Training(model, {'tokenizer': RATE}, {'device': record.device.type, 'precision': name})
        curve = []
        for step in range(steps):
            side.step(batches[step % len(batches)])
            curve.append(side.totals['tokenizer'].clone())
        curves[name] = torch.stack(curve).tolist()
        must_be_equal(f'all losses of {name} are finite', all(map(math.isfinite, curves[name])), f'{steps} steps')
    record.keep('curves', {name: [rounded(value) for value in curve] for name, curve in curves.items()})
    backends: Any = torch.backends
    settings = {'products': backends.cuda.matmul.fp32_precision, 'convolutions': backends.cudnn.conv.fp32_precision}
    record.keep('what fp32 means', settings)
    fell = 100 * (1 - curves['fp32'][-1] / curves['fp32'][0])
    record.row(f'fp32, by how much the loss fell in {steps} steps', fell, '%')
    for name, aim in AIMS.items():
        apart = [abs(one - other) / abs(other) for one, other in zip(curves[name], curves['fp32'], strict=True)]
        record.row(f'{name}, largest difference from the loss of fp32', 100 * max(apart), '%', aim=aim)
        record.keep(f'{name}, mean difference', rounded(sum(apart) / len(apart)))


def group_of_one(record: Record) -> None:
    """The strategy ddp with one rank: process group, all-reduce, training step."""
    kind = record.device.type
    trainer = compose_trainer(tiny=True)
    batch = images(8, 32).to(record.device)

    def side(options: dict[str, Any]) -> Training:
        return Training(trainer['model'], rates_of(trainer), options)

    alone = side({'type': 'BaseStrategy', 'device': kind})
    together = side({'type': 'DDPStrategy', 'device': f'{kind}:0' if kind == 'cuda' else kind})
    try:
        record.keep('backend', distributed.get_backend())
        record.keep('ranks', distributed.get_world_size())
        must_be_equal('the back end', distributed.get_backend() == ('nccl' if kind == 'cuda' else 'gloo'))
        numbers = torch.arange(2**12 if record.quick else 2**26, dtype=torch.float32, device=record.device)
        summed = numbers.clone()
        distributed.all_reduce(summed)
        must_be_equal('a sum over one rank and its input', torch.equal(summed, numbers), f'{numbers.numel()} numbers')
        reduction = timed(record, {'all_reduce': lambda: distributed.all_reduce(summed)}, warmup=2)['all_reduce']
        record.row(f'all_reduce of {numbers.numel()} numbers', 1e3 * reduction.median, 'ms')

        with comparable():
            expected, gradients, _ = alone.first(batch)
            values, found, _ = together.first(batch)
        off, apart = difference(values, expected), gradient_difference(found, gradients)
        detail = f'losses to {off:.0e}, gradients to {apart:.0e} of the largest'
        must_be_equal('a step of ddp and of base', off < ALMOST and apart < 100 * ALMOST, detail)
        before = [parameter.detach().clone() for parameter in together.parameters['tokenizer']]
        memory = peak_mib(record.device, lambda: together.step(batch))
        moved = [not torch.equal(one, other) for one, other in zip(before, together.parameters['tokenizer'], strict=True)]
        must_be_equal('the step moved parameters', any(moved), f'{sum(moved)} of {len(moved)} tensors')
        sides = {'base': lambda: alone.step(batch), 'ddp': lambda: together.step(batch)}
        times = timed(record, sides, warmup=2)
        record.row(
            'a step of the tiny tokenizer under ddp',
            1e3 * times['ddp'].median,
            'ms',
            peer=1e3 * times['base'].median,
            ratio=paired_ratio(times['base'].wall, times['ddp'].wall),
        )
        record.keep('step', {**{name: time.figures() for name, time in times.items()}, 'peak_mib': memory})
    finally:
        together.strategy.stop()
