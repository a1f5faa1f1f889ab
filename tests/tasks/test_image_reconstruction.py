"""The reconstruction task: only the decoder side is trained, tokens do not change, checkpoints record their tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.runners.test_no_waiting import nobody_waits
from tests.tasks.recipes import SHAPE, SmallDiscriminator, gradients, make_batch, make_tokenizer, two_forward_losses
from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.core.records import Latent, Quantized, to_float
from vq.core.specs import CodecSpec, LatentSpec, Size, TokenSpec
from vq.decoders.convolutional import ConvDecoder
from vq.decoders.vit import ViTDecoder
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Decoder, Tokenizer
from vq.io.checkpoints import model_state
from vq.io.weights import load_model_from
from vq.losses.adversarial import hinge_discriminator, hinge_generator
from vq.losses.generator_weight import AdaptiveWeight, FixedWeight
from vq.losses.reconstruction import L1Loss, MSELoss
from vq.nn.connectors import ConvConnector
from vq.registries import VQModelRegistry
from vq.tasks.image_reconstruction.task import AdversarialReconstruction, ImageReconstruction
from vq.tokenizers.with_decoder import TokenizerWithDecoder


def make_whole(tokenizer: Tokenizer | None = None, decoder: Decoder | None = None, **settings: Any) -> TokenizerWithDecoder:
    """A new decoder with 8 input channels, on a tokenizer with 6 channels."""
    frozen = FrozenTokenizer(make_tokenizer() if tokenizer is None else tokenizer, image_size=32, **settings)
    decoder = ConvDecoder(**SHAPE, residual_blocks=1, in_channels=8) if decoder is None else decoder
    return TokenizerWithDecoder(
        frozen=frozen, decoder=decoder, pre_decode=ConvConnector(frozen.out_channels, decoder.in_channels)
    )


def make_plain(seed: int = 0, **settings: Any) -> ImageReconstruction:
    torch.manual_seed(seed)
    return ImageReconstruction(make_whole(**settings), {'l1': L1Loss(), 'l2': MSELoss(0.3)})


def make_adversarial(weight: Any, seed: int = 0, **settings: Any) -> AdversarialReconstruction:
    torch.manual_seed(seed)
    return AdversarialReconstruction(
        make_whole(**settings),
        {'l1': L1Loss(), 'l2': MSELoss(0.3)},
        SmallDiscriminator(),
        hinge_generator,
        hinge_discriminator,
        weight,
    )


class EncodeOnly(Tokenizer):
    """A tokenizer of brightness without decoder and quantizer module, like tokenizers that predict features."""

    codebooks, can_tokenize, can_decode = (16,), True, False

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.linspace(-1, 1, 16)[:, None].repeat(1, 3))

    def encode(self, image: Tensor) -> Latent:
        return Latent(torch.nn.functional.avg_pool2d(image, 2))

    def quantize(self, latent: Latent) -> Quantized:
        tokens = ((latent.mean.mean(1) + 1) * 7.99).long()
        return Quantized(self.lookup(tokens), tokens, {'loss': self.table.sum()})

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.table[tokens].permute(0, 3, 1, 2)

    def spec(self, size: Size) -> CodecSpec:
        cells = (size[0] // 2, size[1] // 2)
        return CodecSpec(TokenSpec(cells, self.codebooks), LatentSpec(3, cells))


def shipped(name: str) -> Any:
    part = PyConfig(PyConfig.load(f'configs/digits/{name}.py').trainer.model.tokenizer)
    part.update(dict(encoder=dict(width=8, norm_groups=2), decoder=dict(width=8, norm_groups=2)))
    return VQModelRegistry.build(part, name)


# trained parameters


@pytest.mark.parametrize('kind', ['plain', 'fixed', 'adaptive'])
def test_the_decoder_side_learns_alone(kind: str) -> None:
    tokenizer = shipped('vq_ema')
    decoder = ViTDecoder(8, dim=12, depth=1, heads=2, patch=8, grid=4)
    if kind == 'plain':
        task = make_plain(tokenizer=tokenizer, decoder=decoder)
    else:
        weight = FixedWeight(0.5) if kind == 'fixed' else AdaptiveWeight()
        task = make_adversarial(weight, tokenizer=tokenizer, decoder=decoder)
    task.train()
    whole = task.tokenizer
    frozen = {name: value.clone() for name, value in whole.frozen.state_dict().items()}
    roots = task.roots()
    names = [
        name
        for name, losses in task.training_step(make_batch(height=32, width=32), roots, 5)
        if losses.total.backward() is None
    ]
    task.update(torch.tensor(True))
    assert names == (['tokenizer'] if kind == 'plain' else ['tokenizer', 'discriminator'])
    learning = {*whole.decoder.parameters(), *whole.pre_decode.parameters()}
    assert {*roots['tokenizer'].parameters()} == learning and all(value.grad is not None for value in learning)
    assert all(value.grad is None and not value.requires_grad for value in whole.frozen.parameters())
    assert not any(part.training for part in whole.frozen.modules()) and whole.decoder.training
    assert not [module for module in roots['tokenizer'].modules() if module in {*whole.frozen.modules()}]
    after = whole.frozen.state_dict()
    assert frozen and all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_loss_is_that_of_the_decoded_tokens() -> None:
    task, batch = make_plain(), make_batch()
    ((_, losses),) = task.train().training_step(batch, task.roots(), 1)
    whole, image = task.tokenizer, to_float(batch.image)
    made = whole.decoder(whole.pre_decode(whole.frozen.tokenizer.lookup(whole.frozen.tokenizer.tokenize(image))))
    expected = (made - image).abs().mean() + 0.3 * (made - image).square().mean()
    torch.testing.assert_close(losses.total, expected)
    assert [*losses.values] == ['l1', 'l2'], 'a frozen quantizer asks for nothing'
    found = task.eval().validation_step(batch)
    torch.testing.assert_close(found.reconstruction, made)
    torch.testing.assert_close(found.losses['total'], expected)
    assert torch.equal(found.tokens, whole.tokenize(image))


@pytest.mark.parametrize('weight', [FixedWeight(0.5), AdaptiveWeight(gain=0.75)])
def test_the_adversarial_form_is_the_two_forward_recipe(weight: Any) -> None:
    task, batch = make_adversarial(weight), make_batch()
    _, losses = next(task.training_step(batch, task.roots(), 1))
    losses.total.backward()
    oracle = make_adversarial(weight)

    def weigh(pixels: Tensor, adversarial: Tensor) -> Tensor | float:
        return weight.value if isinstance(weight, FixedWeight) else weight.gain * pixels / (adversarial + weight.eps)

    total, _ = two_forward_losses(oracle, batch, weigh, {'l1', 'l2'})
    total.backward()
    torch.testing.assert_close(losses.total, total, rtol=1e-5, atol=1e-6)
    found = gradients(task.tokenizer)
    for key, expected in gradients(oracle.tokenizer).items():
        if expected is None:
            assert found[key] is None and key.startswith('frozen.')
        else:
            torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()), msg=key)


def test_a_step_never_waits() -> None:
    decoder = ViTDecoder(8, dim=12, depth=1, heads=2, patch=8, grid=4)
    task, batch = (
        make_adversarial(AdaptiveWeight(), tokenizer=shipped('fsq'), decoder=decoder),
        make_batch(height=32, width=32),
    )
    with nobody_waits(torch.device('cpu')):
        for _, losses in task.train().training_step(batch, task.roots(), 1):
            losses.total.backward()


def test_half_precision_stays_near() -> None:
    batch, totals = make_batch(), []
    for enabled in (False, True):
        task = make_plain()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            ((_, losses),) = task.training_step(batch, task.roots(), 1)
        totals.append(losses.total.detach())
    torch.testing.assert_close(totals[1], totals[0], rtol=0.03, atol=0)


# its use as a tokenizer


@pytest.mark.parametrize('name', ['vq_ema', 'fsq', 'residual', 'multi_scale', 'lfq'])
def test_tokens_are_those_of_the_frozen_tokenizer(name: str) -> None:
    tokenizer = shipped(name)
    before = shipped(name)
    before.load_state_dict(tokenizer.state_dict())
    before.eval()
    decoder = ViTDecoder(8, dim=12, depth=1, heads=2, patch=8, grid=4)
    whole = make_whole(tokenizer, decoder).eval()
    image = to_float(make_batch(height=32, width=32).image)
    tokens = before.tokenize(image)
    assert torch.equal(whole.tokenize(image), tokens)
    assert whole.token_spec((32, 32)).shape == before.token_spec((32, 32)).shape == tuple(tokens.shape[1:])
    assert whole.codebooks == before.codebooks
    assert torch.equal(whole.lookup(tokens), before.lookup(tokens))
    torch.testing.assert_close(whole.detokenize(tokens), decoder(whole.pre_decode(before.lookup(tokens))))


def test_a_tokenizer_that_cannot_decode_gets_a_decoder() -> None:
    task, batch = make_plain(tokenizer=EncodeOnly()), make_batch()
    ((_, losses),) = task.train().training_step(batch, task.roots(), 1)
    losses.total.backward()
    assert task.tokenizer.can_decode and task.tokenizer.frozen.tokenizer.table.grad is None
    tokens = task.tokenizer.tokenize(to_float(batch.image))
    assert tokens.shape == (5, 6, 5) and task.tokenizer.detokenize(tokens).shape == (5, 3, 12, 10)


def test_a_continuous_tokenizer_is_decoded_from_its_means() -> None:
    tokenizer = shipped('kl')
    decoder = ViTDecoder(8, dim=12, depth=1, heads=2, patch=8, grid=4)
    task, batch = make_plain(tokenizer=tokenizer, decoder=decoder), make_batch(height=32, width=32)
    ((_, losses),) = task.train().training_step(batch, task.roots(), 1)
    whole = task.tokenizer
    made = decoder(whole.pre_decode(tokenizer.eval().encode(to_float(batch.image)).mean))
    torch.testing.assert_close(losses.values['l1'], (made - to_float(batch.image)).abs().mean())
    assert task.outputs.tokens is None and not losses.values.keys() & {'kl'} and not whole.can_tokenize


def test_the_decoder_it_had_is_let_go() -> None:
    tokenizer = make_tokenizer()
    own = {id(parameter) for parameter in tokenizer.decoder.parameters()}
    whole = make_whole(tokenizer)
    assert own and not own & {id(parameter) for parameter in whole.parameters()} and not tokenizer.can_decode


def test_images_of_another_size_have_more_tokens() -> None:
    decoder = ViTDecoder(8, dim=12, depth=1, heads=2, patch=8, grid=4)
    whole = make_whole(shipped('vq_ema'), decoder)
    assert whole.token_spec((48, 48)).shape == (6, 6) and whole.detokenize(torch.zeros(1, 6, 6, dtype=torch.int64)).shape == (
        1,
        3,
        48,
        48,
    )


def test_what_does_not_fit_says_so() -> None:
    with pytest.raises(ConfigError, match='stands for 2 x 2 pixels, and the decoder makes 4 x 4') as caught:
        make_whole(decoder=ViTDecoder(8, dim=12, depth=1, heads=2, patch=4))
    assert 'Give the decoder 2 pixels a token' in caught.value.hint
    frozen, decoder = FrozenTokenizer(make_tokenizer()), ConvDecoder(**SHAPE, residual_blocks=1, in_channels=8)
    with pytest.raises(ConfigError, match='the tokenizer gives 6 channels and the decoder takes 8'):
        TokenizerWithDecoder(frozen=frozen, decoder=decoder)
    with pytest.raises(ConfigError, match='trains a decoder on the code vectors'):
        make_whole(gives='features')
    with pytest.raises(ConfigError, match='was given a VQGAN'):
        ImageReconstruction(make_tokenizer(), {'l1': L1Loss()})


# weights


def save_tokenizer(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file({f'tokenizer.{name}': value for name, value in make_tokenizer().state_dict().items()}, path)
    return path


def test_checkpoints_hold_what_learned_and_whose_tokens_it_reads(tmp_path: Path) -> None:
    file = save_tokenizer(tmp_path / 'one.safetensors', 5)
    task = make_adversarial(FixedWeight(0.5), weights=str(file))
    task.tokenizer.frozen.load_pretrained()
    state = model_state(task)
    assert {name.rpartition('.')[0].split('.')[0] for name in state} == {'tokenizer', 'discriminator'}
    of_tokenizer = {'.'.join(name.split('.')[1:3]) for name in state if name.startswith('tokenizer.')}
    assert {name.split('.')[0] for name in of_tokenizer} == {'frozen', 'pre_decode', 'decoder'}
    assert [name for name in state if '.frozen.' in name] == ['tokenizer.frozen.digest']
    assert task.tokenizer.frozen.digest.any()
    save_file(state, tmp_path / 'decoder.safetensors')
    other = make_plain(seed=1, weights=str(file))  # as a validator would: without a discriminator
    other.tokenizer.frozen.load_pretrained()
    report = load_model_from(other, [tmp_path / 'decoder.safetensors'])
    assert all(name.startswith('discriminator.') for name in report.unexpected) and not report.missing
    batch = make_batch()
    assert torch.equal(other.eval().validation_step(batch).reconstruction, task.eval().validation_step(batch).reconstruction)


@pytest.mark.parametrize('first', ['tokenizer', 'checkpoint'])
def test_a_decoder_of_another_tokenizer_is_refused(tmp_path: Path, first: str) -> None:
    one, two = (save_tokenizer(tmp_path / f'{seed}.safetensors', seed) for seed in (1, 2))
    task = make_plain(weights=str(one))
    task.tokenizer.frozen.load_pretrained()
    save_file(model_state(task), tmp_path / 'decoder.safetensors')
    other = make_plain(weights=str(two))
    steps = [other.tokenizer.frozen.load_pretrained, lambda: load_model_from(other, [tmp_path / 'decoder.safetensors'])]
    first_step, second_step = steps if first == 'tokenizer' else reversed(steps)
    first_step()
    with pytest.raises(UserError, match='belongs to another tokenizer'):
        second_step()
