"""A diffusion transformer in training and in sampling: ours, diffusers' DiT with equal weights, and the plain public form.

    python benchmarks/diffusion.py                  S/8 on latents of 32 x 32 and a small network, with one thread and with two
    python benchmarks/diffusion.py --quick          two blocks of the small network and 10 steps, with one thread
    python benchmarks/diffusion.py --output FILE    also write the line of JSON to a file
    python benchmarks/diffusion.py --energy         an energy in place of the denoiser: its training step, its memory

    training step       noise, forward, loss, backward and fused AdamW on cached latents
    sampling            DDIM in 50 steps with classifier-free guidance, both halves in one batch, without decoding
    latents             a step of ours on cached latents and on images, which pass through the frozen KL autoencoder first:
                        the rest is its share of the step

    ours                ``DiffusionTask.training_step`` and ``DiffusionTask.draw``, as in vq.train and vq.sample
    diffusers           ``DiTTransformer2DModel`` and ``DDIMScheduler``, in the loops of its examples
    plain               the network of the paper, written plainly (``_plain_dit.py``), with a scheduler as plain

Equality is checked first: loss, gradients of every weight, and the latents after all steps. The weights are those of ours,
carried over by ``vq export``. Then the sides are timed in turns, medians of 7. Ratios are of CPU time, paired by round: other
work on the machine changes it less than wall time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import Times, arguments, finish, in_turns, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '2')  # set_num_threads goes up to this number
environment.prepare()

import torch  # noqa: E402
from _diffusion_energy import compare_energy  # noqa: E402
from _diffusion_sides import (  # noqa: E402
    DOWN,
    TIMES,
    Diffusers,
    Ours,
    Peer,
    Plain,
    Size,
    batch_of,
    build,
    first_noise,
    numbers_of_step,
)
from torch import Tensor  # noqa: E402

from vq.core.records import Batch  # noqa: E402

OURS, PEERS = 'ours', ('diffusers', 'plain')
TRAINING, SAMPLING = 1.0, 1.15  # aims: the time of the faster peer in that of ours
SMALL, LARGE = Size(8, 2, 128, 6, 4, rows=32, drawn=8), Size(32, 8, 384, 12, 6, rows=16, drawn=4)
QUICK = SMALL._replace(depth=2, rows=8, drawn=2, steps=10)
REPEATS = 7


def check(size: Size) -> dict[str, float]:
    """Loss and gradients of the first step, and the latents of a whole run, of both peers against ours."""
    task = build(size, drop=0.0)
    ours, batch = Ours(task), batch_of(size, size.rows)
    peers: dict[str, Peer] = {'diffusers': Diffusers(task, drop=0.0), 'plain': Plain(task, drop=0.0)}
    ours.step(batch, update=False)
    category = torch.arange(size.drawn)
    expected = ours.sample(category)
    gradients = {name.removeprefix('denoiser.'): value for name, value in ours.gradients().items()}
    of_table = gradients.pop('conditioner.table.weight')
    found = {}
    for name, peer in peers.items():
        peer.step(batch, update=False, numbers=numbers_of_step(task, batch, ours.done))
        off = abs(float(peer.loss - ours.loss)) / float(ours.loss)
        must_be_equal(f'loss of {name} and ours', off < 1e-5, f'to {off:.0e}')
        wanted = peer.of_ours(gradients, of_table)
        of_peer = peer.gradients()
        assert wanted.keys() == of_peer.keys()
        overall = max(float(value.abs().max()) for value in wanted.values())
        floor = 1e-3 * overall  # of biases of keys the gradient is 0: what is there are rounding errors
        apart = max(_apart(of_peer[key], value, floor) for key, value in wanted.items())
        must_be_equal(f'gradients of {name} and ours', apart < 1e-3, f'to {apart:.0e} of the largest of each weight')
        latents = _apart(peer.sample(category, first_noise(size)), expected)
        must_be_equal(f'latents of {name} and ours', latents < 1e-3, f'to {latents:.0e} of the largest')
        found |= {f'{name}, gradients': rounded(apart, 2), f'{name}, latents': rounded(latents, 2)}
    return found


def _apart(one: Tensor, other: Tensor, floor: float = 0.0) -> float:
    return float((one - other).abs().max()) / max(float(other.abs().max()), floor)


def sides_of(size: Size) -> dict[str, dict[str, Callable[[], object]]]:
    """'training step' and 'sampling' -> name of the side -> what is timed."""
    batch, category, noise = batch_of(size, size.rows), torch.arange(size.drawn), first_noise(size)
    ours, peers = Ours(build(size)), {'diffusers': Diffusers(build(size)), 'plain': Plain(build(size))}
    steps: dict[str, Callable[[], object]] = {OURS: lambda: ours.step(batch)}
    draws: dict[str, Callable[[], object]] = {OURS: lambda: ours.sample(category)}
    for name, peer in peers.items():
        steps[name] = lambda peer=peer: peer.step(batch)  # type: ignore[misc]
        draws[name] = lambda peer=peer: peer.sample(category, noise)  # type: ignore[misc]
    return {'training step': steps, 'sampling': draws}


def report(title: str, times: dict[str, Times], count: int, aim: float) -> dict[str, Any]:
    """Table and figures of the sides; ``count`` images in each."""
    ours = times[OURS]
    wall, cpu = ({name: paired_ratio(getattr(time, kind), getattr(ours, kind)) for name, time in times.items()}
                 for kind in ('wall', 'cpu'))  # fmt: skip
    rows = [
        (name, 1e3 * time.median, 1e3 * time.cpu_median, count / time.median, wall[name], cpu[name])
        for name, time in times.items()
    ]
    table(title, ('', 'ms', 'cpu ms', 'images/s', 'x ours', 'x ours, cpu'), rows)
    least = min(cpu[name] for name in PEERS)
    print(f'the faster peer takes {least:.3g} times the processor time of ours, aim {aim}')
    sides = {name: {**time.figures(), 'times_ours': rounded(wall[name]), 'cpu_times_ours': rounded(cpu[name])}
             for name, time in times.items()}  # fmt: skip
    return {'images': count, 'sides': sides, 'faster_cpu': rounded(least), 'aim': aim, 'aim_met': least >= aim}


def share_of_tokenizer(size: Size, width: int) -> dict[str, Any]:
    """A step on cached latents against a step on images of the frozen autoencoder of ``width`` channels."""
    ours, cached = Ours(build(size, width)), batch_of(size, size.rows)
    pixels = DOWN * size.side
    image = torch.randint(0, 256, (size.rows, 3, pixels, pixels), dtype=torch.uint8)
    live = Batch(image, cached.id, cached.key, cached.category)
    cached = dataclasses.replace(cached, latent=ours.task.space.encode(image))
    losses = []
    for batch in (cached, live):
        ours.step(batch, update=False)
        losses.append(ours.loss)
    must_be_equal('the losses of cached latents and of images', torch.equal(*losses))
    ours.optimizer.zero_grad(set_to_none=True)
    times = in_turns({'cached': lambda: ours.step(cached), 'on the fly': lambda: ours.step(live)}, REPEATS)
    share = 1 - paired_ratio(times['cached'].cpu, times['on the fly'].cpu)
    where = f'KL autoencoder of width {width}, images of {pixels} pixels'
    rows = [(name, 1e3 * time.median, 1e3 * time.cpu_median, size.rows / time.median) for name, time in times.items()]
    table(f'{size.name}, batch {size.rows}, {where}', ('latents', 'ms', 'cpu ms', 'images/s'), rows)
    print(f'the tokenizer takes {100 * share:.3g} % of the step')
    figures = {name: time.figures() for name, time in times.items()}
    return {'pixels': pixels, 'width': width, 'batch': size.rows, 'share': rounded(share), 'sides': figures}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the line of JSON to this file, too')
    parser.add_argument('--energy', action='store_true', help='the step of energy diffusion against that of plain diffusion')
    options = parser.parse_args()
    where = machine()
    if options.energy:
        torch.set_num_threads(1)
        finish(
            'diffusion_energy',
            options.quick,
            where,
            compare_energy([QUICK] if options.quick else [SMALL, LARGE]),
            options.output,
        )
        return
    sizes, counts = ([QUICK], [1]) if options.quick else ([SMALL, LARGE], [1, 2])
    figures: dict[str, Any] = {'times': TIMES, 'equality': {size.name: check(size) for size in sizes}, 'rows': {}}
    for threads in counts:
        torch.set_num_threads(threads)
        for size in sizes:
            for what, sides in sides_of(size).items():
                count, aim = (size.rows, TRAINING) if what == 'training step' else (size.drawn, SAMPLING)
                title = f'{what}, {size.name}, {count} images, {threads} thread{"s" if threads > 1 else ""}'
                figures['rows'][title] = report(title, in_turns(sides, REPEATS), count, aim)
    torch.set_num_threads(1)
    figures['latents'] = share_of_tokenizer(sizes[-1]._replace(rows=4), 8 if options.quick else 32)
    finish('diffusion', options.quick, where, figures, options.output)


if __name__ == '__main__':
    main()
