"""channels_last holds through a whole training step: encoder, quantizer, decoder, discriminator, LPIPS, and all backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.strategies.speed_runs import assert_steps_agree, build_task, one_step, placed

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution, aten.convolution_backward)
COPIES = (aten.clone, aten._to_copy, aten.contiguous)


def in_order(value: Tensor) -> bool:
    """NHWC, or too small to matter: an image or two (gradients of pixel losses come in either order), StyleGAN2's last 4 x 4
    cells, a filter that only says its shape."""
    small = value.shape[1] <= 6 or value.shape[2:].numel() <= 16 or not any(value.stride())
    return small or value.is_contiguous(memory_format=torch.channels_last)


class Layouts(TorchDispatchMode):
    """What convolutions meet, and copies that only change the order."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0
        self.wrong: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves(args) if isinstance(value, Tensor) and value.ndim == 4]
        if func.overloadpacket in CONVOLUTIONS:
            self.convolutions += 1
            self.wrong += [f'{func} of {tuple(v.shape)} {v.stride()}' for v in given if not in_order(v)]
        if func.overloadpacket in COPIES and given and given[0].dtype == found.dtype:
            self.wrong += [f'{func} of {tuple(v.shape)} {v.stride()}' for v in given if in_order(v) != in_order(found)]
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    'entry',
    [
        'digits/vq_ema.py',
        'digits/fsq.py',
        'vqgan/1024_imagenet_ddp.py',
        'vqgan/gumbel_f8_8192_imagenet_ddp.py',
        'llamagen/vqgan_stylegan2_imagenet_ddp.py',
    ],
)
def test_no_convolution_meets_another_order(entry: str) -> None:
    task, roots, strategy = placed(build_task(entry), channels_last=True)
    layouts = Layouts()
    with layouts:
        one_step(task, roots, strategy)
    assert not layouts.wrong, '\n'.join(layouts.wrong)
    assert layouts.convolutions > 20


def test_quantizers_get_their_channels_last_without_a_copy() -> None:
    task, roots, strategy = placed(build_task('digits/vq_ema.py'), channels_last=True)
    seen: list[bool] = []
    task.tokenizer.quantizer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].is_contiguous()))
    one_step(task, roots, strategy)
    assert seen == [True]


@pytest.mark.slow
@pytest.mark.parametrize('entry', ['digits/vq_ema.py', 'vqgan/1024_r1_lecam_imagenet_ddp.py'])
def test_the_step_is_the_same(entry: str) -> None:
    found, expected = (one_step(*placed(spread_out(entry), **layout)) for layout in ({'channels_last': True}, {}))
    assert_steps_agree(found, expected, 1e-4)


def spread_out(entry: str) -> Any:
    """With codes as far apart as features are: among those of a new codebook a last bit decides which is nearest."""
    task = build_task(entry)
    with torch.no_grad():
        task.tokenizer.quantizer.codebook.weight.mul_(task.tokenizer.codebook_size)
    return task
