"""Images per second in training the ImageNet VQGAN, with and without discriminator, and as a share of matrix product speed.

The step is that of the trainer, with images that are already on the device. The roof is the rate of a large bf16 matrix
product divided by the FLOPs of a step, which is an upper bound for the speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from _common import must_be_equal, paired_ratio, rounded
from _gpu_clock import peak_mib, product_rate, release, timed
from _gpu_running import Aim, Record
from _gpu_step import Training, comparable, compose_trainer, difference, images, rates_of, without_gan
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vq.core.records import Batch

FAST = {'precision': 'bf16', 'channels_last': True}
AIM = Aim('figure', 100.0)
CHECKED, BATCH, BATCHES = 4, 32, (48, 64, 96, 128, 192)  # with larger batches a feature map has over 2^31 elements
QUICK_BATCH, QUICK_BATCHES = 2, (2, 3)
SLACK = 5e-2  # allowed relative change of a loss by half precision in the first step
ROOM = 0.92  # usable fraction of the memory of the card
LEAST_FOR_COMPILATION = 60.0  # seconds


class Operations(TorchDispatchMode):
    """Counts FLOPs like torch's FlopCounterMode, whose module hooks fail with ``autograd.grad`` at a leaf.

    The code search on a GPU is a kernel that dispatch modes cannot see; it has a thousandth of all FLOPs.
    """

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found


class Sides:
    """Variants of the task, all with the same seed."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.trainer = compose_trainer(record.quick)
        self.size = 32 if record.quick else 256

    def make(self, options: Mapping[str, Any], gan: bool = True) -> Training:
        model = self.trainer['model'] if gan else without_gan(self.trainer['model'])
        return Training(model, rates_of(self.trainer), {'device': self.record.device.type, **options})

    def batch(self, count: int) -> Batch:
        return images(count, self.size).to(self.record.device)


def train(record: Record) -> None:
    sides = Sides(record)
    rate = product_rate(record)
    record.keep('bf16_tflops', rounded(rate / 1e12))
    count = QUICK_BATCH if record.quick else BATCH
    kinds: dict[str, Training] = {}
    kinds['GAN, bf16, channels last'] = fast = sides.make(FAST)
    if fast.missing:
        record.note(f'no pretrained files of {", ".join(fast.missing)}: random weights from seed 0')
    kinds['GAN, bf16'] = sides.make({'precision': 'bf16'})
    check(record, sides, kinds)
    kinds['no GAN, bf16, channels last'] = sides.make(FAST, gan=False)

    batch = sides.batch(count)
    few = sides.batch(QUICK_BATCH if record.quick else CHECKED)
    flops = {name: operations(kind, few) for name, kind in kinds.items()}
    memory = {name: peak_mib(record.device, lambda kind=kind: kind.step(batch)) for name, kind in kinds.items()}
    times = timed(record, {name: lambda kind=kind: kind.step(batch) for name, kind in kinds.items()}, warmup=2)
    peers = {'GAN, bf16, channels last': 'GAN, bf16'}
    for name, time in times.items():
        peer = times.get(peers.get(name, ''))
        record.row(
            f'{name}, batch {count}',
            count / time.median,
            'images/s',
            peer=None if peer is None else count / peer.median,
            ratio=None if peer is None else paired_ratio(peer.wall, time.wall),
            roof=count / time.median * flops[name] / rate,
            aim=AIM if name.startswith('GAN') else None,
        )
        record.keep(name, {**time.figures(), 'peak_mib': memory[name], 'tflop_per_image': rounded(flops[name] / 1e12)})
    kinds.clear()
    release(record.device)
    seconds_at_roof = flops['GAN, bf16, channels last'] / rate  # per image
    largest(record, sides, fast, seconds_at_roof)
    del fast
    release(record.device)
    if record.device.type == 'cuda':
        record.may('the compiled step', LEAST_FOR_COMPILATION, lambda: compiled(record, sides, batch, seconds_at_roof))
    else:
        record.note('the compiled step: needs a GPU; the part graphs compiles a smaller one')


def check(record: Record, sides: Sides, kinds: Mapping[str, Training]) -> None:
    """Compare the first step of each variant with fp32."""
    batch = sides.batch(QUICK_BATCH if record.quick else CHECKED)
    plain = sides.make({})
    with comparable():
        expected, _, _ = plain.first(batch)
        found = {name: kind.first(batch)[0] for name, kind in kinds.items()}
    for name, values in found.items():
        worst = difference(values, expected)
        must_be_equal(f'{name} and fp32 at step 1', worst < SLACK, f'losses to {worst:.1e}')
        record.keep(f'{name}, losses off by', rounded(worst))


def operations(kind: Training, batch: Batch) -> float:
    """FLOPs per image of one step, forward and backward; a multiplication and an addition count as two."""
    with comparable(), Operations() as counted:
        kind.step(batch, update=False)
    kind.task.zero_grad(set_to_none=True)
    return counted.total / len(batch)


def largest(record: Record, sides: Sides, kind: Training, seconds_at_roof: float) -> None:
    """The largest batch of a short list that fits, and its images per second."""
    sizes = list(QUICK_BATCHES if record.quick else BATCHES)
    batch = sides.batch(QUICK_BATCH if record.quick else BATCH)
    peak = peak_mib(record.device, lambda: kind.step(batch))
    if peak is not None:  # skip batches that cannot fit
        held = torch.cuda.memory_allocated() / 2**20
        room = ROOM * torch.cuda.get_device_properties(0).total_memory / 2**20
        sizes = [size for size in sizes if held + (peak - held) / BATCH * size <= room] or sizes[:1]
    for size in reversed(sizes):
        if fits(kind, batch := sides.batch(size)):
            break
        record.note(f'a batch of {size} does not fit')
        release(record.device)
    else:
        raise RuntimeError(f'not even a batch of {sizes[0]} fits')
    memory = peak_mib(record.device, lambda: kind.step(batch))
    time = timed(record, {'step': lambda: kind.step(batch)})['step']
    speed = size / time.median
    record.row(f'GAN, bf16, channels last, largest batch {size}', speed, 'images/s', roof=speed * seconds_at_roof, aim=AIM)
    record.keep('largest', {'batch': size, 'peak_mib': memory, **time.figures()})


def fits(kind: Training, batch: Batch) -> bool:
    try:
        kind.step(batch)
        kind.step(batch)
    except RuntimeError as error:
        # cuDNN reports missing memory with an error of its own
        if not isinstance(error, torch.OutOfMemoryError) and 'cudnn' not in str(error).lower():
            raise
        for optimizer in kind.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return False
    return True


def compiled(record: Record, sides: Sides, batch: Batch, seconds_at_roof: float) -> None:
    both = {'eager': sides.make(FAST), 'compiled': sides.make({**FAST, 'compile': True})}
    expected, _, _ = both['eager'].first(batch)
    values, _, seconds = both['compiled'].first(batch)
    worst = difference(values, expected)
    must_be_equal('compiled and eager at step 1', worst < SLACK, f'losses to {worst:.1e}')
    memory = peak_mib(record.device, lambda: both['compiled'].step(batch))
    times = timed(record, {name: lambda kind=kind: kind.step(batch) for name, kind in both.items()}, warmup=2)
    speeds = {name: len(batch) / time.median for name, time in times.items()}
    record.row(
        f'GAN, bf16, channels last, compiled, batch {len(batch)}',
        speeds['compiled'],
        'images/s',
        peer=speeds['eager'],
        ratio=paired_ratio(times['eager'].wall, times['compiled'].wall),
        roof=speeds['compiled'] * seconds_at_roof,
        aim=AIM,
    )
    record.keep('compiled', {**times['compiled'].figures(), 'peak_mib': memory, 'first_step_s': rounded(seconds)})
