"""Region attention of a batch of layouts, all boxes at once, against a loop over images, boxes and heads.

    python benchmarks/region_attention.py
    python benchmarks/region_attention.py --quick

The loop attends within the cells of each box alone, as the published code does. 8 images of 20 boxes, 8 heads, forward and
backward, on maps of 8 x 8 and of 16 x 16 cells. On the CPU the cells of boxes are gathered; ``masked`` is the form of other
devices, one attention under masks. ``pass 0``, the attention over all cells, is the same work for both sides: it is the roof
of the ratio, and on 16 x 16 cells most of what is left.

First, equality of outputs. With --assert the goal of 10 times on 8 x 8 cells is a condition.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from _common import Cell, Times, arguments, finish, in_turns, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

environment.prepare()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from vq.denoisers.unet import region_attention  # noqa: E402
from vq.denoisers.unet.attention import cells_of, map_of  # noqa: E402
from vq.denoisers.unet.layout_cells import covered  # noqa: E402
from vq.denoisers.unet.region_attention import RegionAttention  # noqa: E402
from vq.interfaces import Conditioned  # noqa: E402
from vq.interfaces.conditions import Layout  # noqa: E402

GOAL = 10.0
GATHERS = region_attention.gathers
IMAGES, BOXES, HEADS, CHANNELS, DIM, CLASSES = 8, 20, 8, 32, 32, 10
SIDES, LARGEST = (8, 16), 0.2  # cells a side, and the largest side of a box in units of the image


def layouts(images: int) -> Layout:
    stream = torch.Generator().manual_seed(0)
    sizes = torch.rand(images, BOXES, 2, generator=stream) * LARGEST
    corners = torch.rand(images, BOXES, 2, generator=stream) * (1 - LARGEST)
    categories = torch.randint(CLASSES, (images, BOXES), generator=stream)
    table_of = torch.randn(CLASSES + 1, DIM, generator=stream)
    return Layout(table_of, torch.cat([corners, sizes], 2), categories, torch.ones(images, BOXES, dtype=torch.bool))


def by_a_loop(block: RegionAttention, x: Tensor, given: Layout) -> Tensor:
    assert given.boxes is not None and given.categories is not None
    rows = []
    for row in range(len(x)):
        base = block.qkv(cells_of(block.norm(x[row : row + 1])))[0]

        def attended(told: Tensor, cells: Tensor, base: Tensor = base) -> Tensor:
            own = (base[cells] + block.prompt(told)).unflatten(1, (block.heads, 3, -1))
            found = []
            for head in range(block.heads):
                q, k, v = own[:, head].unbind(1)
                found.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
            return torch.cat(found, 1)

        total = attended(given.table[-1], torch.ones(len(base), dtype=torch.bool))
        count = base.new_zeros(len(base), 1)
        for box, category in zip(given.boxes[row], given.categories[row], strict=True):
            cells = covered(box, *x.shape[2:]).flatten().nonzero()[:, 0]
            before = total.index_select(0, cells) * (count[cells] > 0)
            total = total.index_copy(0, cells, before + attended(given.table[category], cells))
            count[cells] += 1
        rows.append(total / count.clamp(min=1))
    return x + map_of(block.proj(torch.stack(rows)), x)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--output', type=Path, help='also write the line of JSON to this file')
    parser.add_argument('--assert', dest='must', action='store_true', help='end with an error below the goal')
    options = parser.parse_args()
    where = machine()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    block = RegionAttention(CHANNELS, DIM, heads=HEADS)
    nn.init.normal_(block.proj.weight, std=CHANNELS**-0.5)
    found = {side: measure(block, side, 7 if options.quick else 15) for side in SIDES}
    rows: list[list[Cell]] = [
        [f'{side} x {side}', *(rounded(1e3 * one.cpu_median) for one in times.values()), f'{ratio:.1f}']
        for side, (times, ratio) in found.items()
    ]
    names = [*(f'{name}, ms of CPU' for name in found[SIDES[0]][0]), 'loop / gathered']
    table(f'{IMAGES} images of {BOXES} boxes, {HEADS} heads, forward and backward', ['cells', *names], rows)
    print(f'the goal is a ratio of {GOAL:g} on {SIDES[0]} x {SIDES[0]} cells')
    figures = {
        f'{side} cells a side': {'times': {name: one.figures() for name, one in times.items()}, 'ratio': rounded(ratio)}
        for side, (times, ratio) in found.items()
    }
    finish('region_attention', options.quick, where, {**figures, 'goal': GOAL}, options.output)
    ratio = found[SIDES[0]][1]
    if options.must and ratio < GOAL:
        raise SystemExit(f'the loop takes {ratio:.1f} times as long, and the goal is {GOAL:g}')


def measure(block: RegionAttention, side: int, repetitions: int) -> tuple[dict[str, Times], float]:
    """Times by name, and how many times as long as gathered cells the loop takes."""
    x, given = torch.randn(IMAGES, CHANNELS, side, side), layouts(IMAGES)
    nobody = given._replace(there=torch.zeros_like(given.there))

    def ours(masked: bool, asked: Layout = given) -> Tensor:
        region_attention.gathers = (lambda inside: False) if masked else GATHERS
        return block(x, Conditioned(layout=asked))

    sides: dict[str, Callable[[], Tensor]] = {
        'gathered': lambda: ours(False),
        'masked': lambda: ours(True),
        'loop': lambda: by_a_loop(block, x, given),
        'pass 0': lambda: ours(False, nobody),
    }
    with torch.no_grad():
        found = {name: one() for name, one in sides.items()}
    for name in ('gathered', 'masked'):
        off = float((found[name] - found['loop']).abs().max())
        must_be_equal(f'{name} and the loop', off < 1e-4, f'largest error {off:.1e}')
    times = in_turns({name: (lambda one=one: one().sum().backward()) for name, one in sides.items()}, repetitions)
    return times, paired_ratio(times['loop'].cpu, times['gathered'].cpu)


if __name__ == '__main__':
    main()
