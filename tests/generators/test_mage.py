"""MAGE: what its encoder and decoder see, what is learned, and drawing by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import truncnorm

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, UserError
from vq.generators.mage import MAGEGenerator
from vq.registries import VQGeneratorRegistry
from vq.sampling.streams import uniforms

CODES, CLASSES = 13, 4


def make(seed=0, spread=20.0, **settings):
    """A small generator in eval mode, with weights large enough that all outputs depend on all inputs."""
    torch.manual_seed(seed)
    given = dict(cells=(3, 5), codebooks=(CODES,), classes=CLASSES, dim=16, depth=2, heads=2, decoder_depth=2, steps=4)
    model = MAGEGenerator(**{**given, 'decoder_dim': 24, **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread if parameter.dim() > 1 else 1).add_(torch.randn_like(parameter) * 0.1)
    return model.double().eval()


def draw_tokens(rows, shape=(3, 5), seed=1):
    return torch.randint(CODES, (rows, *shape), generator=torch.Generator().manual_seed(seed))


def inverse(logits, uniform):
    """A sampler: the first code whose cumulative probability exceeds the number."""
    sums = logits.softmax(-1).cumsum(-1)
    return (sums <= uniform[..., None]).sum(-1).clamp(max=logits.shape[-1] - 1)


def draw(model, ids=(0, 1, 2), scale=1.0, sampler=inverse, seed=5, category=None, **more):
    request = Wanted(list(ids), seed, None if category is None else Condition(category), **more)
    return model.generate(request, sampler, lambda step, steps: scale)


def seen_by_network(model, tokens, category=None):
    """The inputs of the network in one forward of the generator, and what this returned."""
    met = []
    handle = model.network.register_forward_hook(lambda module, given, logits: met.append(given))
    predicted = model(tokens, None if category is None else Condition(category))
    handle.remove()
    return met[0], predicted


# the network


def masked_block(block, x, readable):
    """One block with full attention of (B, T, dim), of which only the positions ``readable`` (B, T) can be read."""
    normed = F.layer_norm(x, x.shape[-1:], block.attention_norm.weight, block.attention_norm.bias, 1e-6)
    q, k, v = (part.unflatten(2, (block.heads, -1)) for part in block.qkv(normed).chunk(3, 2))  # (B, T, heads, size)
    scores = torch.einsum('bqhc,bkhc->bhqk', q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~readable[:, None, None], -math.inf).softmax(-1)
    x = x + block.proj(torch.einsum('bhqk,bkhc->bqhc', weights, v).flatten(2))
    normed = F.layer_norm(x, x.shape[-1:], block.mlp_norm.weight, block.mlp_norm.bias, 1e-6)
    return x + block.down(F.gelu(block.up(normed)))


@torch.no_grad()
def test_an_encoder_without_dropped_tokens_is_full_attention_over_the_kept_ones():
    network = make().network
    tokens, category = draw_tokens(3, (15,)), torch.tensor([0, 3, 1])
    kept = torch.stack([torch.randperm(15)[:7] for _ in range(3)])
    hidden = torch.rand(3, 15) < 0.4
    readable = torch.zeros(3, 15, dtype=torch.bool).scatter(1, kept, True)
    x = torch.where(hidden[..., None], network.hidden_token, network.tokens.weight[tokens]) + network.positions[0]
    x = torch.cat([network.categories.weight[category][:, None], x], 1)
    x = F.layer_norm(x, (16,), network.input_norm.weight, network.input_norm.bias, 1e-6)
    for block in network.blocks:
        x = masked_block(block, x, F.pad(readable, (1, 0), value=True))
    expected = F.layer_norm(x, (16,), network.norm.weight, network.norm.bias, 1e-6)
    found = network.encode(tokens, hidden, category, None, kept)
    assert found.shape == (3, 8, 16)
    torch.testing.assert_close(found[:, 0], expected[:, 0])
    for row in range(3):
        torch.testing.assert_close(found[row, 1:], expected[row, 1 + kept[row]])


@torch.no_grad()
def test_a_decoder_reads_visible_tokens_at_their_places_and_the_class_at_all_others():
    network = make().network
    tokens, category = draw_tokens(2, (15,)), torch.tensor([0, 3])
    kept = torch.stack([torch.randperm(15)[:7] for _ in range(2)])
    hidden = torch.ones(2, 15, dtype=torch.bool).scatter(1, kept[:, :4], False)  # 4 visible, 3 hidden but kept, 8 dropped
    encoded = network.to_decoder(network.encode(tokens, hidden, category, None, kept))
    rows = []
    for row in range(2):
        places = [encoded[row, 0]] * 16
        for number in range(4):
            places[1 + int(kept[row, number])] = encoded[row, 1 + number]
        rows.append(torch.stack(places) + network.decoder_positions)
    z = torch.stack(rows)
    for block in network.decoder_blocks:
        z = masked_block(block, z, torch.ones(2, 16, dtype=torch.bool))
    z = F.layer_norm(z, (24,), network.decoder_norm.weight, network.decoder_norm.bias, 1e-6)[:, 1:]
    head = network.head
    z = F.layer_norm(F.gelu(head.transform(z)), (16,), head.norm.weight, head.norm.bias, 1e-6)
    found = network(tokens, hidden, category, None, kept)
    assert found.shape == (2, 15, CODES)
    torch.testing.assert_close(found, z @ network.tokens.weight.T + head.bias)


@torch.no_grad()
def test_every_position_sees_all_visible_tokens_and_no_hidden_one():
    network = make().network
    tokens, category = draw_tokens(1, (15,)), torch.tensor([2])
    kept = torch.tensor([[1, 2, 3, 5, 6, 9, 14]])
    hidden = torch.ones(1, 15, dtype=torch.bool).scatter(1, kept[:, 2:], False)
    before = network(tokens, hidden, category, None, kept)
    for position in range(15):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % CODES
        moved = (network(changed, hidden, category, None, kept) - before).abs().amax(2)[0]
        if hidden[0, position]:
            assert moved.max() == 0, f'logits know the hidden token {position}'
        else:
            assert moved.min() > 1e-9, f'a position does not see token {position}'
    assert (network(tokens, hidden, torch.tensor([3]), None, kept) - before).abs().amax(2).min() > 1e-9
    # which of the hidden positions the encoder reads is no matter of the order in which they are given
    torch.testing.assert_close(network(tokens, hidden, category, None, kept.flip(1)), before)


@torch.no_grad()
def test_all_positions_in_any_order_are_no_dropping():
    network = make().network
    tokens, hidden, category = draw_tokens(2, (15,)), torch.rand(2, 15) < 0.5, torch.tensor([1, 2])
    everything = torch.stack([torch.randperm(15), torch.randperm(15)])
    torch.testing.assert_close(network(tokens, hidden, category, None, everything), network(tokens, hidden, category))
    null = network(tokens, hidden, None)
    torch.testing.assert_close(network(tokens, hidden, category, torch.tensor([True, True])), null)
    assert not torch.allclose(network(tokens, hidden, category), null)


def test_builds_on_the_meta_device_and_from_a_config():
    config = dict(type='MAGEGenerator', cells=[16, 16], codebooks=[1024], classes=1000, dim=768, depth=12, heads=12)
    with torch.device('meta'):
        model = VQGeneratorRegistry.build(config)
    block = 12 * 768**2 + 13 * 768  # qkv, proj, up, down, their biases, two norms
    embeddings = (1024 + 1 + 1000 + 1 + 256) * 768 + 257 * 768
    norms, maps = 4 * 2 * 768, 2 * (768**2 + 768)  # input, encoder, decoder, head; to the decoder, head
    assert sum(parameter.numel() for parameter in model.parameters()) == 20 * block + embeddings + norms + maps + 1024
    assert {parameter.device.type for parameter in model.parameters()} == {'meta'}


def test_recomputed_blocks_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = make(dropout=0.2).train()
        for block in (*model.network.blocks, *model.network.decoder_blocks):
            block.recompute = recompute
        torch.manual_seed(3)
        model(draw_tokens(4), Condition(torch.arange(4))).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


# learning


@pytest.mark.slow
@pytest.mark.parametrize(('low', 'count'), [(0.5, 7), (0.2, 12), (0.0, 15), (0.95, 0)])
@torch.no_grad()
def test_training_drops_the_same_number_of_hidden_tokens_in_every_image(low, count):
    model = make(label_drop=0.25, mask_min=low).train()
    tokens, category = draw_tokens(2000), torch.arange(2000) % CLASSES
    lengths = []
    model.network.blocks[0].register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    (_, hidden, known, dropped, kept), predicted = seen_by_network(model, tokens, category)
    assert lengths == [1 + count] and kept.shape == (2000, count)
    assert predicted.mask is hidden and torch.equal(known, category) and torch.equal(predicted.targets, tokens.flatten(1))
    assert abs(dropped.float().mean() - 0.25) < 0.04
    assert all(len(set(row)) == count for row in kept.tolist()[:100])
    not_kept = torch.ones_like(hidden).scatter(1, kept, False)
    assert not (not_kept & ~hidden).any(), 'a visible token was dropped'
    share = hidden.double().mean(1)
    assert share.max() == 1 and (share * 15).round().min() == math.floor(low * 15) + 1
    ratio = truncnorm((low - 0.55) / 0.25, (1 - 0.55) / 0.25, 0.55, 0.25)
    mean = sum(count / 15 * (ratio.cdf(count / 15) - ratio.cdf((count - 1) / 15)) for count in range(1, 16))
    assert abs(share.mean() - mean) < 0.03  # five deviations
    # each position is hidden, and kept, as often as any other
    assert (hidden.double().mean(0) - share.mean()).abs().max() < 0.06
    assert (not_kept.double().mean(0) - (15 - count) / 15).abs().max() < 0.06


def test_a_share_that_is_a_whole_number_of_tokens_drops_that_many():
    for length in (10, 25):
        for share in range(length):
            model = make(cells=(length,), mask_min=share / length, dim=2, heads=1, depth=0, decoder_depth=0, spread=1)
            assert model.dropped_count == share


@torch.no_grad()
def test_evaluation_hides_the_same_in_any_batch_and_draws_nothing():
    model = make()
    tokens, category = draw_tokens(9), torch.arange(9) % CLASSES
    before = torch.get_rng_state()
    given, whole = seen_by_network(model, tokens, category)
    assert torch.equal(torch.get_rng_state(), before) and given[3] is None  # no label was dropped
    assert len({tuple(row) for row in whole.mask.tolist()}) > 5
    part = model(tokens[4:6], Condition(category[4:6]))
    assert torch.equal(part.mask, whole.mask[4:6])
    torch.testing.assert_close(part.logits, whole.logits[4:6])


def test_targets_do_not_reach_the_logits_that_learn():
    """Inputs of the encoder have gradients at visible tokens, and none at the tokens of hidden positions."""
    model = make(cells=(5,)).train()
    tokens, met = torch.arange(5)[None], []
    embed = model.network.tokens.forward
    model.network.tokens.forward = lambda ids: met.append(embed(ids).detach().requires_grad_()) or met[-1]
    predicted = model(tokens, Condition(torch.tensor([0])))
    predicted.logits[predicted.mask].square().sum().backward()
    moved = met[0].grad.abs().sum(2)[0]
    assert torch.equal(moved > 0, ~predicted.mask[0])


@pytest.mark.parametrize('shape', [(3, 5), (7,), (1, 1)])
def test_bfloat16_gives_logits_gradients_and_codes(shape):
    model = make(cells=shape, spread=1.0).float().train()
    with torch.autocast('cpu', torch.bfloat16):
        predicted = model(draw_tokens(3, shape), Condition(torch.tensor([0, 1, 3])))
        F.cross_entropy(predicted.logits[predicted.mask], predicted.targets[predicted.mask]).backward()
        tokens = draw(model.eval(), category=torch.tensor([0, 1, 3]), scale=2.0)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert tokens.shape == (3, *shape) and tokens.dtype == torch.int64
    assert draw(model.bfloat16(), category=torch.tensor([0, 1, 3])).max() < CODES


# drawing; test_masked.py tests the loop that all masked generators share


@torch.no_grad()
def test_two_steps_by_hand():
    """Four tokens: floor(4 cos(pi/4)) = 2 stay hidden after the first step, none after the second."""
    model = make(cells=(4,), spread=5.0, steps=2, choice_temperature=3.0)
    category, scale = torch.tensor([2]), 1.5
    found = draw(model, [7], scale, category=category)[0]
    noise = uniforms(5, [7], 2, 4, purpose='tokens')[0].double()
    luck = uniforms(5, [7], 2, 4, purpose='confidence')[0].double()

    def guided(tokens, hidden):
        conditional = model.network(tokens, hidden, category)[0]
        unconditional = model.network(tokens, hidden, None)[0]
        return (unconditional + scale * (conditional - unconditional)).softmax(-1)

    def first_above(probabilities, number):
        return next(code for code in range(CODES) if probabilities[: code + 1].sum() > number)

    p = guided(torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool))
    drawn = [first_above(p[place], noise[0, place]) for place in range(4)]
    # the temperature of step 1 of 2 is half of the first one
    score = [p[place, drawn[place]].log() - 1.5 * (-luck[0, place].log()).log() for place in range(4)]
    fixed = sorted(range(4), key=lambda place: -score[place])[:2]
    assert [int(found[place]) for place in fixed] == [drawn[place] for place in fixed]
    hidden = torch.ones(1, 4, dtype=torch.bool)
    hidden[0, fixed] = False
    p = guided(torch.where(hidden, 0, torch.tensor([drawn])), hidden)
    for place in set(range(4)) - set(fixed):
        assert found[place] == first_above(p[place], noise[1, place])


def test_tokens_are_of_the_sample_not_of_its_batch():
    model = make(spread=5.0)
    category = torch.tensor([0, 1, 2, 3, 0])
    for scale in (1.0, 3.0):
        whole = draw(model, range(5), scale, category=category)
        assert len({tuple(row) for row in whole.flatten(1).tolist()}) == 5
        assert torch.equal(draw(model, [3, 1], scale, category=category[[3, 1]]), whole[[3, 1]])
    assert not torch.equal(draw(model, range(5), seed=6, category=category), draw(model, range(5), category=category))


@pytest.mark.parametrize('order', ['confidence', 'halton'])
def test_kept_tokens_stay_and_the_rest_follows_from_them(order):
    model = make(spread=5.0, order=order)
    category, given = torch.tensor([0, 1, 2]), draw_tokens(3)
    half = torch.zeros(3, 5, dtype=torch.bool)
    half[:2, :3] = True
    first = draw(model, category=category, given=given, keep=half)
    assert torch.equal(first[:, half], given[:, half])
    other = torch.where(half, (given + 1) % CODES, given)
    assert not torch.equal(draw(model, category=category, given=other, keep=half)[:, ~half], first[:, ~half])


def test_a_generator_without_classes():
    model = make(classes=0).train()
    assert model(draw_tokens(2), None).logits.shape == (2, 15, CODES)
    assert torch.equal(draw(model.eval()), draw(model, scale=3.0))
    with pytest.raises(UserError, match='has no classes'):
        draw(model, category=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'cells': (4, 4, 2)}, 'several codes per cell'),
        ({'mask_min': 1.0}, 'mask_min'),
        ({'mask_std': 0.0}, 'mask_std'),
        ({'heads': 3}, '3 heads cannot share 16'),
        ({'decoder_heads': 5}, '5 heads cannot share 24'),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(**settings)
    assert caught.value.hint


@pytest.mark.slow
def test_a_tiny_network_learns_eight_images_by_their_classes():
    torch.manual_seed(0)
    images = torch.randint(16, (8, 4, 4))
    settings = dict(steps=5, choice_temperature=0.0, mask_mean=0.9)
    model = MAGEGenerator((4, 4), (16,), 8, dim=64, depth=1, heads=4, decoder_depth=1, **settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 130)
    category = torch.arange(8).repeat(4)
    for _ in range(130):
        predicted = model.train()(images.repeat(4, 1, 1), Condition(category))
        F.cross_entropy(predicted.logits[predicted.mask], predicted.targets[predicted.mask]).backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    wanted = torch.tensor([5, 0, 7, 2, 1, 6, 4, 3])
    drawn = draw(model.eval(), range(8), sampler=lambda logits, uniform: logits.argmax(-1), category=wanted)
    assert torch.equal(drawn, images[wanted])
