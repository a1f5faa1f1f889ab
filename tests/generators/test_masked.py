"""Masked generation: inputs of the network, the loss, and decoding against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import truncnorm

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.generators.masked import MaskedGenerator
from vq.registries import VQGeneratorRegistry
from vq.sampling.masked import halton_order, hidden_counts
from vq.sampling.streams import uniforms

CODES, CLASSES = 13, 4


def make(seed=0, spread=20.0, **settings):
    """A small generator in eval mode, with weights large enough that all outputs depend on all inputs."""
    torch.manual_seed(seed)
    given = dict(cells=(3, 5), codebooks=(CODES,), classes=CLASSES, dim=16, depth=2, heads=2, steps=4)
    model = MaskedGenerator(**{**given, **settings})
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


def greedy(logits, uniform):
    return logits.argmax(-1)


def scale_of(scale):
    return lambda step, steps: scale


def draw(model, ids=(0, 1, 2), scale=1.0, sampler=inverse, seed=5, category=None, **more):
    request = Wanted(list(ids), seed, None if category is None else Condition(category), **more)
    return model.generate(request, sampler, scale_of(scale))


# the network


@pytest.mark.parametrize('settings', [{}, {'positions': 'grid'}, {'tied': False}, {'cells': (15,)}])
def test_every_position_sees_all_visible_tokens_and_no_hidden_one(settings):
    network = make(**settings).network
    tokens, category = draw_tokens(1, (15,)), torch.tensor([2])
    hidden = torch.zeros(1, 15, dtype=torch.bool)
    hidden[0, [0, 4, 7, 14]] = True
    before = network(tokens, hidden, category)
    assert before.shape == (1, 15, CODES)
    for position in range(15):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % CODES
        moved = (network(changed, hidden, category) - before).abs().amax(2)[0]
        if hidden[0, position]:
            assert moved.max() == 0, f'logits know the hidden token {position}'
        else:
            assert moved.min() > 1e-9, f'a position does not see token {position}'
    assert (network(tokens, hidden, torch.tensor([3])) - before).abs().amax(2).min() > 1e-9


def test_positions_and_the_mask_tell_tokens_apart():
    """Without position embeddings attention is equivariant: moving tokens moves logits. With them it is not."""
    network = make(positions='grid').network
    tokens, hidden = draw_tokens(2, (15,)), torch.rand(2, 15) < 0.5
    order = torch.randperm(15)
    for zero in (False, True):
        if zero:
            for positions in network.positions:
                torch.nn.init.zeros_(positions)
        moved = network(tokens[:, order], hidden[:, order], None) - network(tokens, hidden, None)[:, order]
        assert (moved.abs().max() < 1e-9) == zero
    with pytest.raises(ConfigError, match='grid'):
        make(positions='grid', cells=(15,))


def test_grid_positions_are_rows_plus_columns():
    network = make(positions='grid').network
    rows, columns = network.positions
    assert rows.shape == (3, 16) and columns.shape == (5, 16)
    torch.testing.assert_close(network._position()[2 * 5 + 3], rows[2] + columns[3])


def test_categories_end_where_they_should():
    """The last class is not the null class, a dropped label is, and larger classes are refused."""
    network = make().network
    tokens, hidden = draw_tokens(1, (15,)), torch.ones(1, 15, dtype=torch.bool)
    none = network(tokens, hidden, None)
    for category in range(CLASSES):
        given = torch.tensor([category])
        assert not torch.allclose(network(tokens, hidden, given), none)
        torch.testing.assert_close(network(tokens, hidden, given, torch.tensor([True])), none)
        torch.testing.assert_close(network(tokens, hidden, given, torch.tensor([False])), network(tokens, hidden, given))
    with pytest.raises(IndexError):
        network(tokens, hidden, torch.tensor([CLASSES]))


def test_builds_on_the_meta_device_and_from_a_config():
    config = dict(type='MaskedGenerator', cells=[16, 16], codebooks=[1024], classes=1000, dim=768, depth=24, heads=16)
    with torch.device('meta'):
        model = VQGeneratorRegistry.build(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    block = 12 * 768**2 + 13 * 768  # qkv, proj, up, down, their biases, two norms
    embeddings = (1024 + 1 + 1000 + 1 + 256) * 768
    head = 768**2 + 3 * 768 + 1024
    assert count == 24 * block + embeddings + 2 * 768 + head
    assert {parameter.device.type for parameter in model.parameters()} == {'meta'}


def test_recomputed_blocks_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = make(dropout=0.2).train()
        for block in model.network.blocks:
            block.recompute = recompute
        torch.manual_seed(3)
        model(draw_tokens(4), Condition(torch.arange(4))).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


# learning


@pytest.mark.slow
def test_training_hides_and_drops_what_was_drawn():
    model = make(label_drop=0.25, mask_ratio='mage').train()
    tokens = draw_tokens(2000)
    seen = []
    model.network.register_forward_hook(lambda module, given, logits: seen.append(given))
    predicted = model(tokens, Condition(torch.arange(2000) % CLASSES))
    assert predicted.logits.shape == (2000, 15, CODES) and torch.equal(predicted.targets, tokens.flatten(1))
    (_, hidden, category, dropped) = seen[0]
    assert predicted.mask is hidden and torch.equal(category, torch.arange(2000) % CLASSES)
    assert abs(dropped.float().mean() - 0.25) < 0.04
    share = hidden.double().mean(1)
    assert share.min() >= 0.5 and share.max() == 1  # of 15 tokens, 8 to 15
    ratio = truncnorm((0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25, 0.55, 0.25)
    mean = sum(count / 15 * (ratio.cdf(count / 15) - ratio.cdf((count - 1) / 15)) for count in range(1, 16))
    assert abs(share.mean() - mean) < 0.015  # five deviations
    model.label_drop = 0.0
    model(tokens, Condition(torch.arange(2000) % CLASSES))
    assert not seen[1][3].any()
    assert not torch.equal(seen[1][1], hidden)


@pytest.mark.slow
def test_cosine_training_hides_two_pi_th_of_the_tokens():
    model = make(cells=(64,)).train()
    hidden = model(draw_tokens(3000, (64,)), Condition(torch.zeros(3000, dtype=torch.int64))).mask
    assert abs(hidden.double().mean() - 2 / math.pi - 0.5 / 64) < 0.015
    assert hidden.sum(1).min() >= 1


def test_evaluation_hides_the_same_in_any_batch_and_draws_nothing():
    model = make()
    tokens, category = draw_tokens(9), torch.arange(9) % CLASSES
    before = torch.get_rng_state()
    whole = model(tokens, Condition(category))
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(row) for row in whole.mask.tolist()}) > 5
    part = model(tokens[4:6], Condition(category[4:6]))
    assert torch.equal(part.mask, whole.mask[4:6])
    torch.testing.assert_close(part.logits, whole.logits[4:6])
    hidden = whole.mask
    torch.testing.assert_close(whole.logits, model.network(tokens.flatten(1), hidden, category))  # no label was dropped


def test_targets_do_not_reach_the_logits_that_learn():
    """Logits of hidden positions have gradients at the embeddings of visible tokens, and none at those of hidden ones."""
    tokens = torch.arange(5)[None]
    model = make(tied=False, cells=(5,)).train()
    predicted = model(tokens, Condition(torch.tensor([0])))
    predicted.logits[predicted.mask].square().sum().backward()
    moved = model.network.tokens.weight.grad.abs().sum(1)
    for position in range(5):
        assert (moved[tokens[0, position]] > 0) == (not predicted.mask[0, position])


@pytest.mark.parametrize('shape', [(3, 5), (7,), (1, 4)])
def test_bfloat16_gives_logits_gradients_and_codes(shape):
    model = make(cells=shape, spread=1.0).float().train()
    with torch.autocast('cpu', torch.bfloat16):
        predicted = model(draw_tokens(3, shape), Condition(torch.tensor([0, 1, 3])))
        F.cross_entropy(predicted.logits[predicted.mask], predicted.targets[predicted.mask]).backward()
        tokens = draw(model.eval(), category=torch.tensor([0, 1, 3]), scale=2.0)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert tokens.shape == (3, *shape) and tokens.dtype == torch.int64
    assert draw(model.bfloat16(), category=torch.tensor([0, 1, 3])).max() < CODES


# drawing


def by_loops(model, request, scale, counts):
    """Decoding of one image at a time, two passes for guidance, lists and sorted() in place of tensors."""
    length = model.length
    noise = uniforms(request.seed, request.ids, len(counts), length, purpose='tokens').double()
    luck = uniforms(request.seed, request.ids, len(counts), length, purpose='confidence').double()
    images = []
    for row in range(len(request.ids)):
        tokens = [0] * length
        hidden = set(range(length))
        if request.keep is not None:
            hidden = {place for place, kept in enumerate(request.keep.flatten().tolist()) if not kept}
            tokens = [0 if place in hidden else int(request.given[row].flatten()[place]) for place in range(length)]
        for step, after in enumerate(counts):
            mask = torch.tensor([[place in hidden for place in range(length)]])
            conditional = model.network(torch.tensor([tokens]), mask, request.category[row : row + 1])[0]
            unconditional = model.network(torch.tensor([tokens]), mask, None)[0]
            logits = unconditional + scale * (conditional - unconditional)
            scores, drawn = {}, {}
            for place in sorted(hidden):
                probabilities = logits[place].softmax(0).tolist()
                total, code = probabilities[0], 0
                while total <= noise[row, step, place] and code < CODES - 1:
                    code += 1
                    total += probabilities[code]
                drawn[place] = code
                gumbel = -math.log(-math.log(float(luck[row, step, place])))
                left = 1 - (step + 1) / len(counts)
                scores[place] = math.log(probabilities[code]) + model.choice_temperature * left * gumbel
            if model.order == 'halton':
                best = [place for place in halton_order(model.tokens.shape) if place in hidden]
            else:
                best = sorted(hidden, key=lambda place: -scores[place])
            for place in best[: len(hidden) - after]:
                tokens[place] = drawn[place]
                hidden.remove(place)
        assert not hidden
        images.append(tokens)
    return torch.tensor(images).view(-1, *model.tokens.shape)


@pytest.mark.parametrize('scale', [1.0, 2.5])
@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('settings', [{}, {'order': 'halton'}, {'schedule': 'linear', 'cells': (7,), 'steps': 3}])
@torch.no_grad()
def test_decoding_is_the_plain_loop(settings, inside, scale):
    model = make(spread=5.0, **settings)
    shape = model.tokens.shape
    more = {'condition': Condition(torch.tensor([0, 3, 1]))}
    if inside:
        keep = torch.zeros(shape, dtype=torch.bool)
        keep.view(-1)[[1, 2, 6]] = True
        more |= {'given': draw_tokens(3, shape), 'keep': keep}
    request = Wanted([4, 0, 11], 9, **more)
    free = model.length - (3 if inside else 0)
    found = model.generate(request, inverse, scale_of(scale))
    assert torch.equal(found, by_loops(model, request, scale, hidden_counts(free, model.steps, model.schedule)))


def test_tokens_are_of_the_sample_not_of_its_batch():
    model = make(spread=5.0)
    category = torch.tensor([0, 1, 2, 3, 0])
    for scale in (1.0, 3.0):
        whole = draw(model, range(5), scale, category=category)
        assert len({tuple(row) for row in whole.flatten(1).tolist()}) == 5
        turned = draw(model, [3, 1], scale, category=category[[3, 1]])
        assert torch.equal(turned, whole[[3, 1]])
    assert not torch.equal(draw(model, range(5), seed=6, category=category), draw(model, range(5), category=category))


@pytest.mark.parametrize('schedule', ['cosine', 'arccos'])
@pytest.mark.parametrize('order', ['confidence', 'halton'])
@pytest.mark.parametrize('steps', [1, 4, 50])
def test_counts_of_hidden_tokens_are_the_schedule(steps, order, schedule):
    """Counts as seen by the network. Fixed tokens stay; guidance is evaluated once per step."""
    model = make(steps=steps, order=order, schedule=schedule)
    met, asked = [], []
    model.network.register_forward_hook(lambda module, given, logits: met.append(given[:2]))
    request = Wanted([0, 1], 3, Condition(torch.tensor([0, 1])))
    last = model.generate(request, inverse, lambda step, steps: asked.append((step, steps)) or 1.0).flatten(1)
    counts = hidden_counts(15, steps, schedule)
    assert asked == [(step, len(counts)) for step in range(len(counts))]
    for (tokens, hidden), count in zip(met, [15, *counts[:-1]], strict=True):
        assert hidden.sum(1).tolist() == [count, count]
        assert torch.equal(tokens[~hidden], last[~hidden])


def test_guidance_is_one_batch_of_twice_the_rows_and_one_is_none():
    model = make()
    rows = []
    model.network.register_forward_hook(lambda module, given, logits: rows.append(len(logits)))
    plain = draw(model, category=torch.tensor([0, 1, 2]))
    assert rows == [3] * 4
    model.generate(Wanted([0, 1, 2], 5, Condition(torch.tensor([0, 1, 2]))), inverse, lambda step, steps: 1.0 + step // 2)
    assert rows[4:] == [3, 3, 6, 6]
    none = draw(model, scale=0.0, category=torch.tensor([0, 1, 2]))
    assert torch.equal(none, draw(model))  # scale 0: as without a category
    assert not torch.equal(none, plain)


@pytest.mark.parametrize('order', ['confidence', 'halton'])
def test_kept_tokens_stay_and_the_rest_follows_from_them(order):
    model = make(spread=5.0, order=order)
    category, given = torch.tensor([0, 1, 2]), draw_tokens(3)
    half = torch.zeros(3, 5, dtype=torch.bool)
    half[:2, :3] = True
    first = draw(model, category=category, given=given, keep=half)
    assert torch.equal(first[:, half], given[:, half])
    ignored = torch.where(half, given, (given + 1) % CODES)
    assert torch.equal(draw(model, category=category, given=ignored, keep=half), first)  # other tokens are not read
    other = torch.where(half, (given + 1) % CODES, given)
    assert not torch.equal(draw(model, category=category, given=other, keep=half)[:, ~half], first[:, ~half])
    everything = torch.ones_like(half)
    assert torch.equal(draw(model, category=category, given=given, keep=everything), given)
    assert torch.equal(
        draw(model, category=category, given=given, keep=~everything), draw(model, category=category)
    )  # nothing kept


def test_no_token_leaves_the_codebook_even_with_the_last_number_before_one():
    model = make(cells=(4, 4))
    for number in (0.0, 1 - 2**-24):
        tokens = draw(model, range(40), sampler=lambda logits, uniform, n=number: inverse(logits, torch.full_like(uniform, n)))
        assert tokens.min() >= 0 and tokens.max() < CODES
    assert model.network(tokens[:1].flatten(1), torch.ones(1, 16, dtype=torch.bool), None).shape[-1] == CODES
    assert draw(model, []).shape == (0, 4, 4)


def test_a_generator_without_classes():
    model = make(classes=0).train()
    assert model(draw_tokens(2), Condition(torch.tensor([0, 7]))).logits.shape == (2, 15, CODES)
    assert torch.equal(draw(model.eval()), draw(model, scale=3.0))
    with pytest.raises(UserError, match='has no classes'):
        draw(model, category=torch.tensor([0, 1, 2]))


# refusals


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'cells': (4, 4, 2)}, 'several codes per cell'),
        ({'steps': 0}, 'steps'),
        ({'schedule': 'mage'}, 'schedule'),
        ({'mask_ratio': 'sine'}, 'mask_ratio'),
        ({'order': 'raster'}, 'order'),
        ({'label_drop': 1.5}, 'label_drop'),
        ({'choice_temperature': -1.0}, 'choice_temperature'),
        ({'heads': 3}, 'heads'),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(**settings)
    assert caught.value.hint


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'given': draw_tokens(3)}, 'which are kept'),
        ({'given': draw_tokens(2), 'keep': torch.ones(3, 5, dtype=torch.bool)}, 'given has the shape'),
        ({'given': draw_tokens(3), 'keep': torch.ones(15, dtype=torch.bool)}, 'keep has the shape'),
        ({'given': torch.full((3, 3, 5), CODES), 'keep': torch.ones(3, 5, dtype=torch.bool)}, 'not in the codebook'),
        ({'category': torch.tensor([0, 1, CLASSES])}, 'not among the 4'),
        ({'category': torch.tensor([0])}, 'category has the shape'),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        draw(make(), **more)


def test_what_was_never_learned_is_not_drawn():
    model = make(label_drop=0.0)
    with pytest.raises(UserError, match='without one'):
        draw(model)
    with pytest.raises(UserError, match='label_drop=0'):
        draw(model, scale=2.0, category=torch.tensor([0, 1, 2]))
    with pytest.raises(UserError, match='without one'):
        model(draw_tokens(2), None)


def test_logits_that_are_no_distribution_end_the_run():
    model = make()
    with torch.no_grad():
        model.network.tokens.weight[3] = math.nan  # tied: a column of logits
    with pytest.raises(RunFailure, match='logits with NaN or infinity'):
        draw(model, sampler=lambda logits, uniform: torch.where(logits.isnan().any(-1), -1, logits.argmax(-1)))


# all together


@pytest.mark.slow
@pytest.mark.parametrize('order', ['confidence', 'halton'])
def test_a_tiny_network_learns_eight_images_by_their_classes(order):
    torch.manual_seed(0)
    images = torch.randint(16, (8, 4, 4))
    model = MaskedGenerator((4, 4), (16,), 8, dim=64, depth=2, heads=4, steps=5, order=order, choice_temperature=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 150)
    category = torch.arange(8).repeat(4)
    for _ in range(150):
        predicted = model.train()(images.repeat(4, 1, 1), Condition(category))
        F.cross_entropy(predicted.logits[predicted.mask], predicted.targets[predicted.mask]).backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    wanted = torch.tensor([5, 0, 7, 2, 1, 6, 4, 3])
    drawn = draw(model.eval(), range(8), sampler=greedy, category=wanted)
    assert torch.equal(drawn, images[wanted])
    # guidance extrapolates: a few of 128 tokens can differ; by chance 120 would
    assert (draw(model, range(8), 2.0, greedy, category=wanted) != images[wanted]).sum() <= 4
