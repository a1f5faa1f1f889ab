"""A diffusion transformer in training, eager and compiled, and in sampling against diffusers' DiT with equal weights.

The training step is that of the task on cached latents, DiT-B/2 in bf16. Its roof is the rate of a large bf16 matrix product
divided by the FLOPs of a step. Sampling is DDIM in 50 steps with guidance, in bf16 by autocast on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _common import must_be_equal, paired_ratio, rounded
from _diffusion_sides import Diffusers, Ours, Size, batch_of, build, first_noise
from _gpu_clock import peak_mib, product_rate, release, timed
from _gpu_running import Aim, Record
from _gpu_step import comparable
from _gpu_train import Operations

from vq.core.records import Batch

FASTER = Aim('ratio', 1.3)
LEAST_FOR_COMPILATION = 40.0  # seconds
SLACK = 2e-2  # relative change of the loss by half precision
FEW = 4


def diffusion(record: Record) -> None:
    quick, device = record.quick, record.device
    size = Size(4, 2, 32, 1, 2, rows=2, drawn=1, steps=4) if quick else Size(32, 2, 768, 12, 12, rows=256, drawn=16)
    training(record, size, device)
    release(device)
    sampling(record, size, device)


def training(record: Record, size: Size, device: torch.device) -> None:
    rate, batch = product_rate(record), batch_of(size, size.rows, device)
    task = build(size).to(device)
    sides: dict[str, Any] = {'eager': Ours(task)}
    flops = operations(sides['eager'], batch_of(size, min(FEW, size.rows), device))
    exact = loss_of(sides['eager'], batch, low=False)
    low = loss_of(sides['eager'], batch, low=True)
    must_be_equal('the loss in bf16 and in fp32', abs(low - exact) < SLACK * exact, f'{low:.4g} and {exact:.4g}')

    def compiled() -> None:
        other = build(size).to(device)
        other.denoiser.compile(fullgraph=True, dynamic=False)
        side = Ours(other)
        loss = loss_of(side, batch, low=True)
        must_be_equal('the loss of the compiled and the eager step', abs(loss - low) < SLACK * low, f'{loss:.4g}')
        sides['compiled'] = side

    if device.type == 'cuda':
        record.may('the compiled step', LEAST_FOR_COMPILATION, compiled)
    else:
        record.note('the compiled step: needs a GPU; on a CPU the C++ compiler takes half a minute')
    memory = {name: peak_mib(device, lambda side=side: step(side, batch)) for name, side in sides.items()}
    times = timed(record, {name: lambda side=side: step(side, batch) for name, side in sides.items()}, warmup=3)
    for name, time in times.items():
        peer = None if name == 'eager' else times['eager']
        speed = size.rows / time.median
        record.row(
            f'training step, {size.name}, bf16, {name}, batch {size.rows}',
            speed,
            'images/s',
            peer=None if peer is None else size.rows / peer.median,
            ratio=None if peer is None else paired_ratio(peer.wall, time.wall),
            roof=speed * flops / rate,
        )
        record.keep(f'training {name}', {**time.figures(), 'peak_mib': memory[name], 'tflop_per_image': rounded(flops / 1e12)})


def step(side: Ours, batch: Batch, update: bool = True, low: bool = True) -> None:
    with torch.autocast(batch.key.device.type, torch.bfloat16, enabled=low):
        side.step(batch, update)


def loss_of(side: Ours, batch: Batch, low: bool) -> float:
    with comparable():
        step(side, batch, update=False, low=low)
    side.optimizer.zero_grad(set_to_none=True)
    return float(side.loss)


def operations(side: Ours, batch: Batch) -> float:
    """FLOPs per image of one step."""
    with comparable(), Operations() as counted:
        side.step(batch, update=False)
    side.optimizer.zero_grad(set_to_none=True)
    return counted.total / len(batch)


def sampling(record: Record, size: Size, device: torch.device) -> None:
    task = build(size, drop=0.0).to(device)
    ours, theirs = Ours(task), Diffusers(task, drop=0.0)
    category, noise = torch.arange(size.drawn, device=device), first_noise(size, device)
    with comparable():
        expected, found = ours.sample(category), theirs.sample(category, noise)
    apart = float((found - expected).abs().max() / expected.abs().max())
    must_be_equal('latents of ours and of diffusers in fp32', apart < 1e-3, f'to {apart:.0e} of the largest')

    def low(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                work()

        return run

    works: dict[str, Callable[[], object]] = {
        'ours': low(lambda: ours.sample(category)),
        'diffusers': low(lambda: theirs.sample(category, noise)),
    }

    def compiled() -> None:
        task.denoiser.compile(fullgraph=True, dynamic=False)
        again = ours.sample(category)
        apart = float((again - expected).abs().max() / expected.abs().max())
        must_be_equal('latents of the compiled and the eager network', apart < 1e-2, f'to {apart:.0e} of the largest')

    memory = {name: peak_mib(device, work) for name, work in works.items()}
    report(record, size, 'eager', timed(record, works), memory)
    if device.type == 'cuda':

        def both() -> None:
            compiled()
            report(record, size, 'compiled', timed(record, works), memory)

        record.may('sampling, compiled', LEAST_FOR_COMPILATION, both)
    else:
        record.note('sampling by the compiled network: needs a GPU')


def report(record: Record, size: Size, how: str, times: dict[str, Any], memory: dict[str, float | None]) -> None:
    speeds = {name: size.drawn / time.median for name, time in times.items()}
    record.row(
        f'{size.steps} steps with guidance, {size.name}, bf16, {how}, batch {size.drawn}',
        speeds['ours'],
        'images/s',
        peer=speeds['diffusers'],
        ratio=paired_ratio(times['diffusers'].wall, times['ours'].wall),
        aim=FASTER if how == 'compiled' else None,
    )
    record.keep(f'sampling {how}', {name: {**time.figures(), 'peak_mib': memory[name]} for name, time in times.items()})
