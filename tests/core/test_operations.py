"""Counted operations are those of torch's counter, without its import of the compiler."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.shipped import composed
from vq.core.meta import on_meta
from vq.core.operations import Operations
from vq.core.records import Batch
from vq.registries import VQTaskRegistry


def both(work) -> tuple[int, int]:
    with Operations() as ours:
        work()
    with FlopCounterMode(display=False) as theirs:
        work()
    return ours.total, theirs.get_total_flops()


@pytest.mark.parametrize('inference', [False, True])
def test_matrices_convolutions_and_attention_forward_and_backward(inference):
    """In inference mode linear layers and attention arrive undivided."""

    def work():
        image = torch.randn(2, 4, 6, 5, requires_grad=not inference)
        features = F.conv2d(image, torch.randn(8, 4, 3, 3), padding=1).flatten(2)  # (2, 8, 30)
        mixed = F.scaled_dot_product_attention(features[:, None], features[:, None], features[:, None])
        found = F.linear(mixed, torch.randn(3, 30)) @ torch.randn(3, 2)
        if not inference:
            found.sum().backward()

    with torch.inference_mode(inference):
        ours, theirs = both(work)
    assert ours == theirs > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'entry',
    ['digits/vqgan.py', 'digits/ar.py', 'digits/maskgit.py', 'ic/digits.py', 'vqgan/8192_dd2_aglwg075_imagenet_ddp.py'],
)
def test_models_of_shipped_configs(entry):
    with on_meta():
        model = VQTaskRegistry.build(composed(entry).trainer.model, 'model').eval()
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device='meta')
    batch = Batch(image, ['one'], torch.zeros(1, dtype=torch.int64, device='meta'))
    ours, theirs = both(lambda: model.forward_once(batch))
    assert ours == theirs > 0


def test_the_compiler_stays_out():
    """torch wraps the method of a mode that it keeps from being compiled, and the wrapper imports the compiler."""
    assert not hasattr(Operations.__torch_dispatch__, '__wrapped__')
