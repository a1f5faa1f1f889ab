"""Recomputed activations: the same bits, less memory, in training alone, and not where forward has side effects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ranks import GlooPool
from tests.runners.support import assert_same
from tests.strategies.speed_runs import assert_steps_agree, make_batch, one_step, placed, train_gan, train_gan_with
from tests.tasks.recipes import make_task
from vq.assembly.rehearsal import LiveBytes
from vq.core.errors import ConfigError
from vq.decoders.convolutional import ConvDecoder
from vq.encoders.convolutional import ConvEncoder
from vq.losses.penalties import R1Penalty
from vq.losses.reconstruction import L1Loss
from vq.nn.residual import Residual
from vq.quantizers.updates.cvq import CVQUpdate
from vq.quantizers.vector import VectorQuantizer
from vq.strategies.base import BaseStrategy
from vq.strategies.compiling import CompileSettings
from vq.tasks.image_tokenization.task import ImageTokenization
from vq.tokenizers.vqgan import VQGAN

OPTION = dict(checkpoint_activations=True)


def make_tokenizer(dropout: float = 0.0, quantizer: VectorQuantizer | None = None) -> VQGAN:
    """With everything a level can have: attention, a change of width, dropout."""
    shape: dict[str, Any] = dict(width=8, multipliers=(1, 2), attention_levels=(1,), norm_groups=4, dropout=dropout)
    return VQGAN(
        encoder=ConvEncoder(**shape, residual_blocks=2, out_channels=6),
        quantizer=quantizer or VectorQuantizer(16, 6),
        decoder=ConvDecoder(**shape, residual_blocks=2, in_channels=6),
    )


def adversarial(seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return make_task(seed, tokenizer=make_tokenizer(**settings), penalties={'r1': R1Penalty(interval=1)})


@pytest.mark.slow
@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_gradients_are_the_same_bits(dropout: float, precision: str) -> None:
    """In the adversarial task, where the decoder is left between its two halves."""
    plain = one_step(*placed(adversarial(dropout=dropout), precision=precision))
    ours = one_step(*placed(adversarial(dropout=dropout), precision=precision, **OPTION))
    assert_same(ours, plain)


@pytest.mark.slow
def test_memory_falls() -> None:
    peaks = {}
    for option in (False, True):
        torch.manual_seed(0)
        task = ImageTokenization(make_tokenizer(), {'l1': L1Loss()})
        task, roots, strategy = placed(task, checkpoint_activations=option)
        batch = make_batch(64, 2)
        live = LiveBytes(torch.device('cpu'))
        live.leave_out(*task.parameters(), *task.buffers(), batch.image)
        with live:
            one_step(task, roots, strategy, 1, batch)
        peaks[option] = live.peak
    assert peaks[True] < 0.65 * peaks[False]


def test_blocks_run_twice_in_training_and_once_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Residual] = []
    compute = Residual.compute
    monkeypatch.setattr(Residual, 'compute', lambda self, x: (calls.append(self), compute(self, x))[1])
    task, roots, strategy = placed(adversarial(), **OPTION)
    one_step(task, roots, strategy)
    blocks = 2 * (2 * 2 + 2)  # encoder and decoder have two levels of two blocks, and two refining blocks
    assert len(calls) == 2 * blocks
    calls.clear()
    task.eval().validation_step(make_batch())
    assert len(calls) == blocks
    calls.clear()
    task.tokenizer.decode(torch.randn(1, 6, 4, 4, requires_grad=True)).sum().backward()
    assert len(calls) == blocks / 2, 'evaluation keeps its activations'


def test_parts_can_be_named() -> None:
    task, _, _ = placed(adversarial(), checkpoint_activations=('tokenizer.decoder',))
    on = {name for name, module in task.named_modules() if getattr(module, 'recompute', False)}
    assert on and all(name.startswith('tokenizer.decoder.') for name in on)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (('discriminator',), 'discriminator has nothing that can be computed again'),
        (('tokenizer.encoder', 'tokenizer.decodr'), "'tokenizer.decodr'.*did you mean 'tokenizer.decoder'"),
    ],
)
def test_parts_that_cannot(parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        placed(adversarial(), checkpoint_activations=parts)


def test_codebooks_that_move_in_forward_are_refused() -> None:
    moving = adversarial(quantizer=VectorQuantizer(16, 6, update=CVQUpdate(in_forward=True)))
    with pytest.raises(ConfigError, match='which updates its codebook in forward'):
        placed(moving, **OPTION)
    placed(moving)  # without the option they are welcome
    placed(adversarial(quantizer=VectorQuantizer(16, 6, update=CVQUpdate())), **OPTION)


@pytest.mark.slow
def test_compiled_and_recomputed_equals_eager() -> None:
    settings = CompileSettings('aot_eager', fullgraph=True, parts=('tokenizer.encoder', 'tokenizer.decoder'))
    ours = one_step(*placed(adversarial(dropout=0.0), compile=settings, **OPTION))
    assert_steps_agree(ours, one_step(*placed(adversarial())), 1e-5)


def kept_bytes(function: Callable[[Tensor], Tensor], argument: Tensor) -> int:
    """What a call leaves for its backward."""
    sizes: list[int] = []

    def pack(value: Tensor) -> Tensor:
        sizes.append(value.nbytes)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        function(argument)
    return sum(sizes)


@pytest.mark.slow
def test_compiled_parts_keep_less_too() -> None:
    """What the compiler saves for backward, in bytes."""
    saved = {}
    for option in (False, True):
        torch._dynamo.reset()
        settings = CompileSettings('aot_eager', parts=('tokenizer.decoder',))
        task, _, _ = placed(adversarial(), compile=settings, checkpoint_activations=option)
        saved[option] = kept_bytes(task.tokenizer.decoder.features, torch.randn(2, 6, 16, 16, requires_grad=True))
    torch._dynamo.reset()
    assert saved[True] < 0.7 * saved[False]


@pytest.mark.slow
def test_under_ddp_the_same_bits(tmp_path: Path, gloo_pool: GlooPool) -> None:
    options = dict(iters=4, start=0, strategy='ddp')
    plain = gloo_pool.run(train_gan_with, str(tmp_path), options, {})
    assert_same(gloo_pool.run(train_gan_with, str(tmp_path), options, OPTION), plain)


@pytest.mark.slow
def test_with_micro_batches_the_same_bits(tmp_path: Path) -> None:
    options = dict(iters=3, start=0, accumulate=2)
    assert_same(train_gan(str(tmp_path / 'a'), options, **OPTION), train_gan(str(tmp_path / 'b'), options))


def test_off_by_default() -> None:
    task, _, _ = placed(adversarial())
    assert BaseStrategy().checkpoint_activations is False
    assert not any(getattr(module, 'recompute', False) for module in task.modules())
