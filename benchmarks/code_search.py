"""Nearest-code search: ours against textbook code, other packages, and the bare matrix product.

    python benchmarks/code_search.py            4096 features, 16384 codes; 1024 features, 262144 codes; 8 and 256 channels
    python benchmarks/code_search.py --quick    512 and 64 features, the last shape left out

    textbook        the full matrix x^2 - 2 x c + c^2, then argmin
    addmm           one addmm of c^2 and -2 x c, then argmin
    sketch          tiles of 256 x 16384 or 512 x 4096 scores in one reused buffer, max with index of each tile
    cdist, faiss    torch.cdist then argmin; IndexFlatL2
    vq-pytorch      VectorQuantize of vector-quantize-pytorch in eval, against our whole quantizer: tokens, vectors, losses
    matrix product  all scores written to memory, without a search

First, the tokens of every side are checked against float64. If two codes are equally far within fp32 precision, either is
right, so the distance of the chosen code is compared. Then the sides are timed in turns. Ratios are of CPU time, paired by
round. With 262144 codes the sides that need the whole matrix get 128 features at a time, since they would need one or several
gigabytes otherwise, and vector-quantize-pytorch is left out.

Memory is the high-water mark of this process while a side runs (``VmHWM`` of Linux), beyond its memory before. It includes
tensors and memory of libraries, unless they have kept it since the warm-up. With a GPU the kernel is timed against the torch
path and the compiled matrix product.
"""

from __future__ import annotations

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

from vq.core import environment

environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.quantizers.search import nearest_code  # noqa: E402
from vq.quantizers.vector import VectorQuantizer  # noqa: E402

try:
    import faiss
except ImportError:
    faiss = None

OURS, WHOLE, ROOF = 'ours: nearest_code', 'ours: whole quantizer', 'matrix product alone'
KERNEL, TORCH_PATH, COMPILED = 'ours: kernel', 'ours: torch path', 'addmm, argmin, compiled'
SKETCHES = {'sketch, 256 x 16384': (256, 16384), 'sketch, 512 x 4096': (512, 4096)}
MANY_CODES, ROWS_AT_ONCE = 2**17, 128
SLACK = 1e-4  # relative tolerance of distances, for fp32 with two codes at nearly equal distance
PROMISED_MB = 16e6 / 2**20

Shape = tuple[int, int, int]


def textbook(features: Tensor, codes: Tensor) -> Tensor:
    return (features.square().sum(1, keepdim=True) - 2 * features @ codes.t() + codes.square().sum(1)).argmin(1)


def one_addmm(features: Tensor, codes: Tensor) -> Tensor:
    return torch.addmm(codes.square().sum(1), features, codes.t(), alpha=-2).argmin(1)


def sketch(features: Tensor, codes: Tensor, rows: int, width: int) -> Tensor:
    """The sketch from the issue that proposed our search."""
    norms = codes.square().sum(1)
    buffer, tokens = torch.empty(rows * width), []
    for part in features.split(rows):
        best, found = torch.full((len(part),), float('inf')), torch.zeros(len(part), dtype=torch.int64)
        for start in range(0, len(codes), width):
            tile = codes[start : start + width]
            scores = buffer[: len(part) * len(tile)].view(len(part), len(tile))
            value, index = torch.addmm(norms[start : start + width], part, tile.t(), alpha=-2, out=scores).min(1)
            found = torch.where(value < best, index + start, found)
            best = torch.minimum(best, value)
        tokens.append(found)
    return torch.cat(tokens)


def sides_of(features: Tensor, codes: Tensor) -> dict[str, Callable[[], Any]]:
    """Name -> the work to time. features (N, D), codes (K, D)."""
    many = len(codes) > MANY_CODES
    parts = features.split(ROWS_AT_ONCE if many else len(features))
    scores = torch.empty(len(parts[0]), len(codes))
    sides: dict[str, Callable[[], Any]] = {OURS: lambda: nearest_code(features, codes)}
    for name, (rows, width) in SKETCHES.items():
        sides[name] = lambda rows=rows, width=width: sketch(features, codes, rows, width)
    sides['textbook'] = lambda: torch.cat([textbook(part, codes) for part in parts])
    sides['addmm, argmin'] = lambda: torch.cat([one_addmm(part, codes) for part in parts])
    sides['cdist, argmin'] = lambda: torch.cat([torch.cdist(part, codes).argmin(1) for part in parts])
    if faiss is not None:
        index = faiss.IndexFlatL2(codes.shape[1])
        index.add(codes.numpy())
        faiss.omp_set_num_threads(torch.get_num_threads())
        sides['faiss IndexFlatL2'] = lambda: torch.from_numpy(index.search(features.numpy(), 1)[1][:, 0])
    if not many:
        from vector_quantize_pytorch import VectorQuantize  # here: other functions do not need the package

        ours = VectorQuantizer(len(codes), codes.shape[1]).eval()
        ours.codebook.weight.data.copy_(codes)
        sides[WHOLE] = lambda: ours(features).tokens
        theirs = VectorQuantize(dim=codes.shape[1], codebook_size=len(codes)).eval()
        theirs._codebook.embed.data.copy_(codes[None])
        sides['vq-pytorch, whole quantizer'] = lambda: theirs(features[None])[1][0]
    sides[ROOF] = lambda: [torch.mm(part, codes.t(), out=scores[: len(part)]) for part in parts]
    return sides


def inputs(shape: Shape) -> tuple[Tensor, Tensor]:
    count, size, channels = shape
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(size, channels, generator=generator)
    return torch.randn(count, channels, generator=generator), codes


def distances(features: Tensor, codes: Tensor, tokens: Tensor) -> Tensor:
    """Squared distance (N,) of each feature to its code, in float64."""
    return (features.double() - codes.double()[tokens]).square().sum(1)


def truth_of(features: Tensor, codes: Tensor) -> Tensor:
    """Nearest codes (N,) in float64, which is far more precise than any side."""
    return torch.cat([one_addmm(part, codes.double()) for part in features.double().split(ROWS_AT_ONCE)])


def check(name: str, features: Tensor, codes: Tensor, tokens: Tensor, best: Tensor) -> float:
    """The share of tokens equal to those of float64. Other tokens must be equally near."""
    truth = distances(features, codes, best)
    excess = (distances(features, codes, tokens) - truth) / truth.clamp(min=1e-12)
    same = int((tokens == best).sum())
    must_be_equal(f'{name} and float64', bool((excess <= SLACK).all()), f'{same} of {len(best)} the same code')
    return same / len(best)


@torch.no_grad()
def measure(shape: Shape, repeats: int) -> tuple[dict[str, Times], dict[str, float]]:
    """Times of every side, and the share of tokens equal to those of float64."""
    print('\nN={} K={} D={}'.format(*shape))
    features, codes = inputs(shape)
    sides, best = sides_of(features, codes), truth_of(features, codes)
    agree = {name: check(name, features, codes, work(), best) for name, work in sides.items() if name != ROOF}
    return in_turns(sides, repeats, warmup=0), agree  # the check was the warm-up


@torch.no_grad()
def memory_of(shape: Shape) -> dict[str, float | None]:
    return {name: peak_memory(work) for name, work in sides_of(*inputs(shape)).items()}


def report(shape: Shape, times: dict[str, Times], agree: dict[str, float], memory: dict[str, float | None]) -> dict[str, Any]:
    rows: list[tuple[Any, ...]] = []
    found: dict[str, Any] = {}
    for name, time in times.items():
        ratio, megabytes, share = paired_ratio(time.cpu, times[OURS].cpu), memory[name], agree.get(name)
        percent = None if share is None else 100 * share
        rows.append((name, 1e3 * time.median, 1e3 * time.cpu_median, ratio, megabytes, percent))
        peak = None if megabytes is None else round(megabytes, 1)
        found[name] = {**time.figures(), 'times_ours': rounded(ratio), 'peak_mb': peak, 'agree': share}
    if faiss is None:
        rows.append(('faiss: not installed', *[None] * 5))
    table('N={} K={} D={}'.format(*shape), ('', 'ms', 'cpu ms', 'x ours', 'peak MB', 'same code %'), rows)
    sketches = min(found[name]['times_ours'] for name in SKETCHES)
    ours = found[OURS]['peak_mb']
    found['faster_than_sketch'] = sketches > 1
    found['memory_kept'] = None if ours is None else ours <= PROMISED_MB
    print(f'the better sketch takes {sketches:.3g} times ours; memory of ours: {ours} MB, promised {PROMISED_MB:.1f}')
    return found


def sides_on_device(features: Tensor, codes: Tensor, backend: str = 'inductor') -> dict[str, Callable[[], Tensor]]:
    """The search used on the device (a kernel on CUDA), our torch path without a kernel, and the compiled matrix product."""
    compiled = torch.compile(one_addmm, dynamic=False, backend=backend)
    return {
        KERNEL: lambda: nearest_code(features, codes, backend='triton' if features.is_cuda else 'auto'),
        TORCH_PATH: lambda: nearest_code(features, codes, backend='torch'),
        COMPILED: lambda: compiled(features, codes),
    }


def on_gpu(shape: Shape, repeats: int) -> dict[str, Any]:
    """The kernel, the torch path, and the compiled matrix product, all on CUDA."""
    features, codes = (value.cuda() for value in inputs(shape))
    works = sides_on_device(features, codes)
    best = truth_of(features, codes)
    memory = {}
    for name, work in works.items():
        check(f'{name} on {torch.cuda.get_device_name()}', features, codes, work(), best)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20

    def synchronous(work: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: (work(), torch.cuda.synchronize())

    times = in_turns({name: synchronous(work) for name, work in works.items()}, repeats, warmup=3, calls=10)
    ratios = {name: paired_ratio(time.wall, times[KERNEL].wall) for name, time in times.items()}
    rows = [(name, 1e3 * time.median, ratios[name], memory[name]) for name, time in times.items()]
    table('GPU: N={} K={} D={}'.format(*shape), ('', 'ms', 'x ours', 'peak MB'), rows)
    return {
        name: {**time.figures(), 'times_ours': rounded(ratios[name]), 'peak_mb': round(memory[name], 1)}
        for name, time in times.items()
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    where = machine()
    shapes = [(4096, 2**14, 8), (4096, 2**14, 256), (1024, 2**18, 8), (1024, 2**18, 256)]
    if options.quick:
        shapes = [(512, 2**14, 8), (512, 2**14, 256), (64, 2**18, 8)]
    measured = [measure(shape, 7) for shape in shapes]
    memory = [memory_of(shape) for shape in shapes]
    figures = {
        'N{}_K{}_D{}'.format(*shape): report(shape, *timed, used)
        for shape, timed, used in zip(shapes, measured, memory, strict=True)
    }
    gpu: dict[str, Any] | str = 'not run'
    if torch.cuda.is_available():
        gpu = {'N{}_K{}_D{}'.format(*shape): on_gpu((4096, *shape[1:]), 21) for shape in shapes}
    else:
        print('\nGPU: not run')
    finish('code_search', options.quick, where, {'threads': torch.get_num_threads(), 'shapes': figures, 'gpu': gpu})


if __name__ == '__main__':
    main()
