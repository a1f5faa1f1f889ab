"""Nearest-code search: ours against vector-quantize-pytorch, torch.cdist, faiss, and the bare matrix product (the roof).

    python benchmarks/search.py            4096 features; 1024 and 16384 codes; 8 and 256 channels
    python benchmarks/search.py --quick    1024 features

Equality first: the tokens of every side against a brute force in float64. Where the two best codes are closer than fp32
can tell, another choice is right too, so what is compared is the distance of the chosen code. Then time, in turns, and the
most memory each takes beyond its inputs. Ratios (``x ours``, ``x roof``) are of processor time, paired by round.

``lookup`` rows give tokens only. ``quantize`` rows are whole modules in eval: tokens, code vectors and the losses.
The roof is one product of all features with all codes into a ready buffer, with no search in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from _common import (
    Times,
    arguments,
    finish,
    in_turns,
    machine,
    must_be_equal,
    paired_ratio,
    peak_memory,
    rounded,
    table,
)

from vq.cli import environment

environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from vector_quantize_pytorch import VectorQuantize  # noqa: E402
from vector_quantize_pytorch.vector_quantize_pytorch import cdist as their_cdist  # noqa: E402

from vq.quantizers.search import nearest_code  # noqa: E402
from vq.quantizers.vector import VectorQuantizer  # noqa: E402

try:
    import faiss
except ImportError:
    faiss = None

ROOF = 'roof: matrix product'
CODES, CHANNELS = (1024, 16384), (8, 256)
SLACK = 1e-4  # of the distance: what fp32 may lose where two codes are nearly as far


def sides_of(features: Tensor, codes: Tensor) -> dict[str, Callable[[], Any]]:
    """Name -> the work that is timed. features (N, D), codes (K, D)."""
    scores = torch.empty(len(features), len(codes))
    sides: dict[str, Callable[[], Any]] = {
        'ours: nearest_code': lambda: nearest_code(features, codes),
        'cdist + argmin (torch)': lambda: torch.cdist(features, codes).argmin(1),
        'cdist + argmin (vq-pytorch)': lambda: their_cdist(features[None], codes[None])[0].argmin(1),
    }
    if faiss is not None:
        index = faiss.IndexFlatL2(codes.shape[1])
        index.add(codes.numpy())
        faiss.omp_set_num_threads(torch.get_num_threads())
        sides['faiss IndexFlatL2'] = lambda: torch.from_numpy(index.search(features.numpy(), 1)[1][:, 0])
    theirs = VectorQuantize(dim=codes.shape[1], codebook_size=len(codes)).eval()
    theirs._codebook.embed.data.copy_(codes[None])
    ours = VectorQuantizer(len(codes), codes.shape[1]).eval()
    ours.codebook.weight.data.copy_(codes)
    sides['ours: VectorQuantizer'] = lambda: ours(features).tokens
    sides['VectorQuantize (vq-pytorch)'] = lambda: theirs(features[None])[1][0]
    sides[ROOF] = lambda: torch.mm(features, codes.t(), out=scores)
    return sides


KINDS = {
    'lookup': ('ours: nearest_code', ('cdist + argmin (torch)', 'cdist + argmin (vq-pytorch)', 'faiss IndexFlatL2')),
    'quantize': ('ours: VectorQuantizer', ('VectorQuantize (vq-pytorch)',)),
}


def distances(features: Tensor, codes: Tensor, tokens: Tensor) -> Tensor:
    """Squared distance (N,) of each feature to its code, in float64."""
    return (features.double() - codes.double()[tokens]).square().sum(1)


def check(name: str, features: Tensor, codes: Tensor, tokens: Tensor, best: Tensor) -> int:
    """How many tokens are the brute force's; the others must be as near."""
    truth = distances(features, codes, best)
    excess = (distances(features, codes, tokens) - truth) / truth.clamp(min=1e-12)
    same = int((tokens == best).sum())
    must_be_equal(f'{name} and float64 brute force', bool((excess <= SLACK).all()), f'{same} of {len(best)} the same code')
    return same


def brute_force(features: Tensor, codes: Tensor) -> Tensor:
    """Nearest codes (N,) by sums of squared differences in float64."""
    distance = functools.partial(torch.cdist, x2=codes.double(), compute_mode='donot_use_mm_for_euclid_dist')
    return torch.cat([distance(rows).argmin(1) for rows in features.double().split(256)])


def inputs(count: int, codebook_size: int, channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(codebook_size, channels, generator=generator)
    return torch.randn(count, channels, generator=generator), codes


@torch.no_grad()
def measure(shape: tuple[int, int, int], repeats: int) -> tuple[dict[str, Times], dict[str, float]]:
    """Times of every side, and the share of tokens that are those of the brute force."""
    print('\nN={} K={} D={}'.format(*shape))
    features, codes = inputs(*shape)
    sides, best = sides_of(features, codes), brute_force(features, codes)
    agree = {name: check(name, features, codes, work(), best) / len(best) for name, work in sides.items() if name != ROOF}
    return in_turns(sides, repeats), agree


@torch.no_grad()
def memory_of(shape: tuple[int, int, int]) -> dict[str, float | None]:
    return {name: peak_memory(work) for name, work in sides_of(*inputs(*shape)).items()}


def report(
    shape: tuple[int, int, int], times: dict[str, Times], agree: dict[str, float], memory: dict[str, float | None]
) -> dict[str, Any]:
    roof = times[ROOF]
    found: dict[str, Any] = {'roof': roof.figures()}
    for kind, (ours, peers) in KINDS.items():
        rows: list[tuple[Any, ...]] = []
        for name in (ours, *peers):
            if name not in times:
                continue
            time, megabytes = times[name], memory[name]
            ratio, to_roof = paired_ratio(time.cpu, times[ours].cpu), paired_ratio(time.cpu, roof.cpu)
            rows.append((name, 1e3 * time.median, 1e3 * time.cpu_median, ratio, to_roof, megabytes))
            found[f'{kind}/{name}'] = {
                **time.figures(),
                'times_ours': rounded(ratio),
                'times_roof': rounded(to_roof),
                'agree': agree[name],
                'peak_mb': None if megabytes is None else round(megabytes, 1),
            }
        rows.append((ROOF, 1e3 * roof.median, 1e3 * roof.cpu_median, paired_ratio(roof.cpu, times[ours].cpu), 1.0, None))
        table('{}: N={} K={} D={}'.format(kind, *shape), ('', 'ms', 'cpu ms', 'x ours', 'x roof', 'peak MB'), rows)
    return found


def main() -> None:
    options = arguments(__doc__).parse_args()
    where = machine()
    count = 1024 if options.quick else 4096
    shapes = [(count, size, channels) for size in CODES for channels in CHANNELS]
    measured = [measure(shape, 7 if options.quick else 11) for shape in shapes]
    memory = [memory_of(shape) for shape in shapes]
    figures = {
        'N{}_K{}_D{}'.format(*shape): report(shape, *timed, used)
        for shape, timed, used in zip(shapes, measured, memory, strict=True)
    }
    finish('search', options.quick, where, {'threads': torch.get_num_threads(), 'shapes': figures})


if __name__ == '__main__':
    main()
