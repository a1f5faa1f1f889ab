"""The perceptual loss on VGG-16: ours against the lpips package, and the convolutional layers alone (the roof).

    python benchmarks/perceptual.py            8 images of 128 x 128
    python benchmarks/perceptual.py --quick    8 images of 64 x 64

One call computes the same as in a training step: the loss of a prediction and a target, and its gradient at the prediction.
Weights are random, equal on all sides, and not trained. First, value and gradient are checked for equality, in float64 and in
fp32, where rounding flips some ReLUs, so that the gradient is compared as a whole. Then the sides are timed in turns, and
their peak memory beyond the inputs is measured. Ratios (``x ours``, ``x roof``) are of CPU time, paired by round.

The roof is our network forward and backward for the prediction and forward for the target, without the comparison. Our weights
have a channels-last layout. The same layers in the package's layout are a separate row, to separate the effect of the layout
from that of the comparison.
"""

from __future__ import annotations

import copy
import warnings
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

import lpips  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from vq.losses.perceptual import LPIPSLoss  # noqa: E402

OURS, PEER, ROOF, ROOF_PLAIN = 'ours', 'lpips package', 'roof: layers alone', "layers alone, the package's order"
BATCH = 8
CLOSE = {'value': 1e-5, 'exact value': 1e-12, 'gradient': 1e-2, 'exact gradient': 1e-9}  # relative


def their_module() -> nn.Module:
    """The lpips package with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # it uses a deprecated interface of torchvision
        module: nn.Module = lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)
    return module


def modules() -> tuple[LPIPSLoss, nn.Module]:
    """Our loss and the package's with equal weights."""
    torch.manual_seed(0)
    ours, theirs = LPIPSLoss(net='vgg'), their_module()
    state = theirs.state_dict()
    ours.backbone.load_state_dict({name.split('.', 2)[2]: state[name] for name in state if name.startswith('net.')})
    ours.heads.load_state_dict({str(index): state[f'lin{index}.model.1.weight'] for index in range(len(ours.heads))})
    return ours, theirs


def inputs(size: int) -> tuple[Tensor, Tensor]:
    """Prediction (a leaf) and target, (B, 3, H, W) in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(BATCH, 3, size, size, generator=generator) * 2 - 1
    prediction = (target + 0.3 * torch.randn(target.shape, generator=generator)).clamp(-1, 1)
    return prediction.requires_grad_(), target


def step(loss: nn.Module, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient at the prediction."""
    value = loss(prediction, target).mean()
    return value.detach(), torch.autograd.grad(value, prediction)[0]


def layers_alone(backbone: nn.Module, prediction: Tensor, target: Tensor, upstream: Tensor) -> Tensor:
    with torch.no_grad():
        backbone(target)
    return torch.autograd.grad(backbone(prediction)[-1], prediction, upstream)[0]


def check(ours: LPIPSLoss, theirs: nn.Module) -> dict[str, float]:
    """Differences of value and gradient, on two images of 64 x 64."""
    found = {}
    prediction, target = (image[:2].detach() for image in inputs(64))
    for prefix, dtype in (('exact ', torch.float64), ('', torch.float32)):
        sides = (copy.deepcopy(module).to(dtype) for module in (ours, theirs))
        pair = (prediction.to(dtype).requires_grad_(), target.to(dtype))
        (value, gradient), (expected, their_gradient) = (step(side, *pair) for side in sides)
        found[f'{prefix}value'] = float((value - expected).abs() / expected)
        found[f'{prefix}gradient'] = float((gradient - their_gradient).norm() / their_gradient.norm())
    for what, difference in found.items():
        dtype_name = 'float64' if what.startswith('exact') else 'float32'
        name = f'{what.removeprefix("exact ")} of ours and of the package in {dtype_name}'
        must_be_equal(name, difference <= CLOSE[what], f'relative difference {difference:.1e}')
    return {what: rounded(difference, 2) for what, difference in found.items()}


def sides_of(ours: LPIPSLoss, theirs: nn.Module, size: int) -> dict[str, Callable[[], Any]]:
    """Name -> the work to time."""
    prediction, target = inputs(size)
    plain = copy.deepcopy(ours.backbone).to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        upstream = torch.randn_like(ours.backbone(target)[-1])
    return {
        OURS: lambda: step(ours, prediction, target),
        PEER: lambda: step(theirs, prediction, target),
        ROOF: lambda: layers_alone(ours.backbone, prediction, target, upstream),
        ROOF_PLAIN: lambda: layers_alone(plain, prediction, target, upstream.contiguous()),
    }


def report(size: int, times: dict[str, Times], memory: dict[str, float | None]) -> dict[str, Any]:
    rows: list[tuple[Any, ...]] = []
    found: dict[str, Any] = {}
    for name, time in times.items():
        ratio, to_roof = paired_ratio(time.cpu, times[OURS].cpu), paired_ratio(time.cpu, times[ROOF].cpu)
        megabytes = memory[name]
        rows.append((name, 1e3 * time.median, 1e3 * time.cpu_median, ratio, to_roof, megabytes))
        found[name] = {
            **time.figures(),
            'times_ours': rounded(ratio),
            'times_roof': rounded(to_roof),
            'peak_mb': None if megabytes is None else round(megabytes, 1),
        }
    table(f'forward and backward, {BATCH} x 3 x {size} x {size}', ('', 'ms', 'cpu ms', 'x ours', 'x roof', 'peak MB'), rows)
    return found


def main() -> None:
    options = arguments(__doc__).parse_args()
    where = machine()
    size = 64 if options.quick else 128
    ours, theirs = modules()
    differences = check(ours, theirs)
    sides = sides_of(ours, theirs, size)
    times = in_turns(sides, 7 if options.quick else 9)
    memory = {name: peak_memory(work) for name, work in sides.items()}
    figures = {
        'threads': torch.get_num_threads(),
        'shape': [BATCH, 3, size, size],
        'differences': differences,
        'sides': report(size, times, memory),
    }
    finish('perceptual', options.quick, where, figures)


if __name__ == '__main__':
    main()
