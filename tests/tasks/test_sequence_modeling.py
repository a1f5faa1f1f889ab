"""The task that trains token generators: its inputs, its samples, its errors."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.core.records import Batch, Predicted
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.generators.autoregressive import Autoregressive
from vq.generators.mage import MAGEGenerator
from vq.generators.masked import MaskedGenerator
from vq.generators.networks.llama import LlamaNetwork
from vq.registries import VQEncoderRegistry, VQModelRegistry
from vq.sampling.guidance import constant
from vq.sampling.tokens import greedy, multinomial
from vq.tasks.sequence_modeling.task import SequenceModeling, first_half

CODES, CLASSES = 32, 5


def tokenizer() -> FrozenTokenizer:
    shape = dict(width=8, multipliers=(1, 2), residual_blocks=1, attention_levels=(), refine=False, norm_groups=4)
    config = dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', out_channels=8, **shape),
        quantizer=dict(type='VectorQuantizer', codebook_size=CODES, embedding_dim=8),
        decoder=dict(type='ConvDecoder', **shape),
    )
    return FrozenTokenizer(VQModelRegistry.build(config), image_size=8)


def task(kind: str = 'autoregressive', draw=multinomial, **settings) -> SequenceModeling:
    torch.manual_seed(0)
    shape = dict(dim=16, depth=2, heads=2, steps=4)
    if kind == 'masked':
        generator = MaskedGenerator((4, 4), (CODES,), CLASSES, **shape)
    elif kind == 'mage':
        generator = MAGEGenerator((4, 4), (CODES,), CLASSES, **shape, decoder_depth=1)
    else:
        network = LlamaNetwork(CODES, 16, 2, 2, grid=(4, 4), prefix=1)
        torch.nn.init.normal_(network.head.weight, std=0.5)
        generator = Autoregressive(network, (4, 4), (CODES,), CLASSES)
    return SequenceModeling(generator, tokenizer(), draw, functools.partial(constant, scale=2.0), **settings).eval()


def batch(count: int = 3, tokens: bool = True) -> Batch:
    stream = torch.Generator().manual_seed(1)
    ids = [f'a/{number}' for number in range(count)]
    return Batch(
        image=torch.randint(0, 256, (count, 3, 8, 8), generator=stream, dtype=torch.uint8),
        id=ids,
        key=torch.tensor([key_of(name) for name in ids]),
        category=torch.arange(count) % CLASSES,
        tokens=torch.randint(0, CODES, (count, 4, 4), generator=stream) if tokens else None,
    )


@pytest.mark.parametrize('kind', ['autoregressive', 'masked', 'mage'])
def test_the_loss_is_the_cross_entropy_of_what_is_learned(kind):
    found = task(kind)
    samples = batch()
    ((name, losses),) = found.training_step(samples, found.roots(), 1)
    predicted = found.generator(samples.tokens, Condition(samples.category))
    terms = -predicted.logits.double().log_softmax(-1).gather(2, predicted.targets[..., None])[..., 0]
    expected = terms.mean() if predicted.mask is None else terms[predicted.mask].mean()
    assert name == 'generator'
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (predicted.mask is not None) == (kind != 'autoregressive')


def test_label_smoothing_is_torchs():
    logits, targets = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    found = task(label_smoothing=0.1).loss(Predicted(logits, targets))
    expected = 0.9 * F.cross_entropy(logits.flatten(0, 1), targets.flatten()) - 0.1 * logits.log_softmax(-1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_visible_tokens_have_no_part_in_the_loss():
    """The mean of the smoothed terms of hidden tokens; whatever is predicted for visible ones."""
    logits, targets, mask = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5)), torch.rand(3, 5) < 0.5
    logits[~mask] *= 100
    logits.requires_grad_()
    found = task('mage', label_smoothing=0.1).loss(Predicted(logits, targets, mask))
    log_p = logits.detach().log_softmax(-1)
    places = mask.nonzero().tolist()
    terms = [-0.9 * log_p[row, place, targets[row, place]] - 0.1 * log_p[row, place].mean() for row, place in places]
    assert found.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    found.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, mask)


def test_images_are_tokenised_where_there_are_no_tokens():
    found, samples = task(), batch(tokens=False)
    tokens = found.codes.tokenize(samples.image / 127.5 - 1)
    assert torch.equal(found.tokens_of(samples), tokens)
    assert torch.equal(found.validation_step(samples).tokens, tokens)


def test_only_the_generator_learns():
    found = task().train()
    ((_, losses),) = found.training_step(batch(), found.roots(), 1)
    losses.total.backward()
    assert not found.tokenizer.training and not found.codes.training
    assert all(parameter.grad is None for parameter in found.tokenizer.parameters())
    owned = {id(parameter) for root in found.roots().values() for parameter in root.parameters()}
    assert owned == {id(parameter) for parameter in found.parameters() if parameter.requires_grad}
    kept = [key for key in found.state_dict() if not key.startswith(found.frozen_prefixes())]
    assert 'tokenizer.digest' in kept
    assert not [key for key in kept if key.startswith('tokenizer.tokenizer')]


@pytest.mark.parametrize('kind', ['autoregressive', 'masked', 'mage'])
def test_what_validation_draws(kind):
    found, samples = task(kind), batch(tokens=True)
    outputs = found.validation_step(samples)
    assert set(outputs.pictures) == {'generated', 'half_generated', 'teacher_forced'}
    for picture in outputs.pictures.values():
        assert picture.shape == samples.image.shape
    assert torch.equal(outputs.reconstruction, found.codes.detokenize(samples.tokens))
    again = found.validation_step(samples)
    for name, picture in outputs.pictures.items():
        assert torch.equal(picture, again.pictures[name]), 'two looks at the same weights see the same'
    one = slice(1, 2)
    alone = Batch(samples.image[one], samples.id[one], samples.key[one], samples.category[one], tokens=samples.tokens[one])
    torch.testing.assert_close(
        found.validation_step(alone).pictures['generated'], outputs.pictures['generated'][1:2], atol=1e-4, rtol=0
    )


def test_the_given_half_stays_exactly(monkeypatch):
    found, samples, drawn = task(), batch(), []
    decode = found.codes.detokenize
    monkeypatch.setattr(found.codes, 'detokenize', lambda tokens: drawn.append(tokens) or decode(tokens))
    found.validation_step(samples)
    _, generated, half, _ = drawn
    assert torch.equal(half[:, :2], samples.tokens[:, :2])
    assert not torch.equal(half[:, 2:], samples.tokens[:, 2:])
    assert not torch.equal(generated[:, :2], samples.tokens[:, :2])


def test_a_teacher_that_knows_the_tokens_is_repeated():
    """With the true tokens as certain predictions, the drawn image is the image itself."""
    found, samples = task(draw=greedy, draws=('teacher_forced',)), batch()
    found.generator.forward = lambda tokens, category: Predicted(
        F.one_hot(tokens.flatten(1), CODES).float() * 50, tokens.flatten(1)
    )
    outputs = found.validation_step(samples)
    assert torch.equal(outputs.pictures['teacher_forced'], outputs.reconstruction)
    assert outputs.losses['cross_entropy'] < 1e-6


def test_ids_of_classes_are_never_taken_for_tokens():
    """Predictions over a joint vocabulary in which the most likely id is a class."""
    ids = CODES + CLASSES + 1
    network = LlamaNetwork(ids, 16, 1, 2, length=16)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    network.head.weight.data[: CLASSES + 1] *= 50
    generator = Autoregressive(network, (4, 4), (CODES,), CLASSES, 'joint', predicts='vocabulary')
    found = SequenceModeling(generator, tokenizer(), greedy, functools.partial(constant, scale=1.0)).eval()
    outputs = found.validation_step(batch())
    assert (outputs.predicted.logits.argmax(-1) <= CLASSES).any()
    assert outputs.predicted.logits.shape[-1] == ids
    assert all(picture.isfinite().all() for picture in outputs.pictures.values())


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [((4, 3), 6), ((3, 3), 5), ((5,), 3), ((2, 2, 3), 6), ((1, 1), 1)],
)
def test_half_is_the_first_cells_in_raster_order(shape, expected):
    keep = first_half(shape, torch.device('cpu'))
    assert keep.shape == shape and int(keep.sum()) == expected
    flat = keep.flatten().tolist()
    assert flat == sorted(flat, reverse=True)


def test_what_does_not_fit_is_refused():
    network = LlamaNetwork(9, 16, 1, 2, grid=(4, 4), prefix=1)
    with pytest.raises(ConfigError, match='the tokenizer has 32 codes, and the generator learns 9'):
        SequenceModeling(Autoregressive(network, (4, 4), (9,)), tokenizer(), greedy, constant)
    found = task()
    with pytest.raises(ConfigError, match=r'tokens of the shape \(2, 2\), and the generator learns \(4, 4\)'):
        found.tokens_of(Batch(batch().image, [], torch.empty(0), tokens=torch.zeros(3, 2, 2, dtype=torch.int64)))
    samples = batch()
    samples.category = None
    with pytest.raises(ConfigError, match='5 classes, and this dataset gives none'):
        found.validation_step(samples)
    with pytest.raises(ConfigError, match="draws is \\('dreams',\\)"):
        task(draws=('dreams',))
    encoder = VQEncoderRegistry.build(dict(type='ConvEncoder', out_channels=32))
    with pytest.raises(ConfigError, match='tokenizer is a ConvEncoder'):
        SequenceModeling(found.generator, encoder, greedy, constant)
