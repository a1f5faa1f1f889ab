"""Autoregressive generation: against full recomputation, the two-pass definition of guidance, and counting by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.generators.autoregressive import Autoregressive
from vq.generators.decoding import Decoding
from vq.generators.networks.llama import LlamaNetwork
from vq.generators.segments import Segments
from vq.interfaces import CausalNetwork
from vq.sampling.guidance import constant, interval, linear
from vq.sampling.streams import uniforms
from vq.sampling.tokens import greedy, multinomial

SHAPE, CODES, CLASSES = (3, 5), 13, 4
NONE, STRONG = partial(constant, scale=1.0), partial(constant, scale=3.0)


def network_of(vocabulary: int, positions: int, seed: int = 0) -> LlamaNetwork:
    network = LlamaNetwork(vocabulary, 16, 2, 2, length=positions)
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3, generator=generator)
    return network


def model_of(kind: str = 'prefix', **options) -> Autoregressive:
    """A model: ``prefix``, ``joint``, ``free`` (no classes) or ``deep`` (three codebooks of different sizes)."""
    settings = dict(cells=SHAPE, codebooks=(CODES,), classes=CLASSES, vocabulary='prefix')
    vocabulary = CODES
    if kind == 'joint':
        settings['vocabulary'] = 'joint'
        vocabulary = CODES + CLASSES + (options.get('label_drop', 0.1) > 0)
    if kind == 'free':
        settings['classes'] = 0
    if kind == 'deep':
        settings.update(cells=(2, 2), codebooks=(6, 13, 4))
        vocabulary = 23
    settings |= options
    torch.manual_seed(1)
    model = Autoregressive(network_of(vocabulary, 15), **settings).eval()
    if kind != 'joint':
        nn.init.normal_(model.start if kind == 'free' else model.class_embedding.weight)
    return model


def condition_of(label: Tensor | None) -> Condition | None:
    return None if label is None else Condition(label)


def request_of(model: Autoregressive, ids: list[int], **fields) -> Wanted:
    category = torch.tensor([sample % model.classes for sample in ids]) if model.classes else None
    return Wanted(ids, 7, None if category is None else Condition(category), **fields)


def logits_of(model: Autoregressive, tokens: Tensor, label: Tensor | None, position: int) -> Tensor:
    """Logits over the segment of ``position``, recomputed by hand without a cache."""
    n = len(model.tokens.codebooks)
    sizes = model.tokens.codebooks
    offset = 0
    if model.joint:
        offset = model.classes + (model.label_drop > 0)
        start = model.network.embed(label[:, None])
    elif model.classes:
        start = model.class_embedding.weight[label][:, None]
    else:
        start = model.start[None, None].repeat(len(tokens), 1, 1)
    ids = [tokens[:, t] + offset + sum(sizes[: t % n]) for t in range(position)]
    embedded = torch.cat([start, *(model.network.embed(column[:, None]) for column in ids)], 1)
    first = offset + sum(sizes[: position % n])
    return model.network(embedded)[:, -1, first : first + sizes[position % n]].float()


@torch.no_grad()
def by_hand(model: Autoregressive, request: Wanted, sampler, guidance) -> Tensor:
    """Two passes from scratch per token."""
    rows, length = len(request.ids), model.positions
    numbers = uniforms(request.seed, request.ids, length)
    null = torch.full((rows,), model.classes)
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    kept = None if request.keep is None else request.keep.flatten()
    for t in range(length):
        if kept is not None and kept[t]:
            tokens[:, t] = request.given.flatten(1)[:, t]
            continue
        logits, scale = logits_of(model, tokens, request.category, t), guidance(t, length)
        if scale != 1:
            unconditional = logits_of(model, tokens, null, t)
            logits = unconditional + scale * (logits - unconditional)
        tokens[:, t] = sampler(logits, numbers[:, t])
    return tokens.view(rows, *model.tokens.shape)


KINDS = ['prefix', 'joint', 'free', 'deep']
SCHEDULES = {
    'strong': STRONG,
    'until 6': partial(interval, scale=3.0, last=6),
    'from 4 to 9': partial(interval, scale=2.0, first=4, last=9),
    'falling to 1': partial(linear, start=3.0, scale=1.0),
    'at the end': partial(interval, scale=3.0, first=8, last=99),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('sampler', [greedy, partial(multinomial, top_k=5, temperature=1.5)], ids=['greedy', 'multinomial'])
def test_cached_generation_is_full_recomputation(kind, sampler):
    model = model_of(kind)
    request = request_of(model, [3, 0, 12, 5])
    tokens = model.generate(request, sampler, NONE)
    assert tokens.shape == (4, *model.tokens.shape) and tokens.dtype == torch.int64 and not tokens.is_inference()
    assert torch.equal(tokens, by_hand(model, request, sampler, NONE))
    assert len(tokens.unique()) > 3


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['prefix', 'joint', 'deep'])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_guided_generation_is_two_passes(kind, schedule):
    model, sampler = model_of(kind), partial(multinomial, temperature=1.2)
    request = request_of(model, [4, 1, 7])
    tokens = model.generate(request, sampler, SCHEDULES[schedule])
    assert torch.equal(tokens, by_hand(model, request, sampler, SCHEDULES[schedule]))
    assert not torch.equal(tokens, model.generate(request, sampler, NONE)), 'guidance does something'


def test_scale_1_is_conditional_and_costs_nothing(monkeypatch):
    model = model_of(label_drop=0.0)  # which knows no null class
    seen = []
    step = LlamaNetwork.step
    monkeypatch.setattr(LlamaNetwork, 'step', lambda self, x, *rest: seen.append(tuple(x.shape[:2])) or step(self, x, *rest))
    tokens = model.generate(request_of(model, [0, 1]), multinomial, NONE)
    assert torch.equal(tokens, by_hand(model, request_of(model, [0, 1]), multinomial, NONE))
    assert seen == [(2, 1)] * 15


def test_the_null_half_is_left_out_once_guidance_is_over(monkeypatch):
    model, seen, step = model_of(), [], LlamaNetwork.step
    monkeypatch.setattr(LlamaNetwork, 'step', lambda self, x, *rest: seen.append(tuple(x.shape[:2])) or step(self, x, *rest))
    model.generate(request_of(model, [0, 1]), greedy, SCHEDULES['until 6'])
    assert seen == [(4, 1)] * 7 + [(2, 1)] * 8


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_sample_is_the_same_in_every_batch_and_place(kind):
    model, ids = model_of(kind), [11, 3, 8, 0, 25, 6, 2, 9]
    guidance = STRONG if model.classes else NONE
    sampler = partial(multinomial, top_p=0.9)
    whole = model.generate(request_of(model, ids), sampler, guidance)
    for row, sample in enumerate(ids):
        assert torch.equal(model.generate(request_of(model, [sample]), sampler, guidance)[0], whole[row])
    assert torch.equal(model.generate(request_of(model, ids[::-1]), sampler, guidance), whole.flip(0))


def test_step_of_a_batch_is_that_of_its_rows():
    model = model_of()
    x = torch.randn(8, 15, 16, generator=torch.Generator().manual_seed(3))
    whole, alone = model.network.make_cache(8, 15), [model.network.make_cache(1, 15) for _ in range(8)]
    for t in range(15):
        logits = model.network.step(x[:, t : t + 1], t, whole)
        each = [model.network.step(x[row : row + 1, t : t + 1], t, alone[row]) for row in range(8)]
        torch.testing.assert_close(logits, torch.cat(each), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', ['prefix', 'deep'])
def test_graphed_steps_give_the_logits_of_plain_ones(kind):
    """On a GPU a graph replays ``step_at``; here it is called directly, at every position, after a prefill."""
    model = model_of(kind)
    start = model.start_of(torch.tensor([0, 1, 4, 4]))
    ids = torch.randint(6, (2, 15), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, graphed = (Decoding(model.network, start, 15, graph) for graph in (False, True))
        for first, last in ((0, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 14)):
            a, b = plain.advance(ids[:, first:last]), graphed.advance(ids[:, first:last])
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            if last == 6:
                plain.keep_rows(2)
                graphed.keep_rows(2)
    assert plain.position == graphed.position == 15
    assert len(a) == 2


@pytest.mark.parametrize('guidance', [NONE, STRONG], ids=['plain', 'guided'])
@pytest.mark.parametrize('kind', ['prefix', 'joint', 'deep'])
def test_half_an_image_is_completed(kind, guidance, monkeypatch):
    """The given half is kept, is a prefill of one step, and the rest equals that of two passes without a cache."""
    model = model_of(kind)
    half = model.positions // 2
    keep = (torch.arange(model.positions) < half).view(model.tokens.shape)
    other = model.generate(request_of(model, [40, 41]), multinomial, NONE)
    given = torch.where(keep, other, -1)  # tokens that are not kept are not read
    request = request_of(model, [2, 5], given=given, keep=keep)
    expected = by_hand(model, request, multinomial, guidance)
    steps, step = [], LlamaNetwork.step
    monkeypatch.setattr(
        LlamaNetwork, 'step', lambda self, x, at, cache: steps.append((at, x.shape[1])) or step(self, x, at, cache)
    )
    tokens = model.generate(request, multinomial, guidance)
    assert torch.equal(tokens[:, keep], other[:, keep])
    assert torch.equal(tokens, expected)
    assert not torch.equal(tokens, other)
    assert steps == [(0, half + 1)] + [(t, 1) for t in range(half + 1, model.positions)]


def test_chosen_positions_are_painted_in(monkeypatch):
    model = model_of()
    keep = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1], dtype=torch.bool).view(SHAPE)
    given = torch.randint(CODES, (3, *SHAPE), generator=torch.Generator().manual_seed(2))
    request = request_of(model, [1, 2, 3], given=given, keep=keep)
    expected = by_hand(model, request, multinomial, STRONG)
    steps, step = [], LlamaNetwork.step
    monkeypatch.setattr(
        LlamaNetwork, 'step', lambda self, x, at, cache: steps.append((at, x.shape[1])) or step(self, x, at, cache)
    )
    tokens = model.generate(request, multinomial, STRONG)
    assert torch.equal(tokens[:, keep], given[:, keep]) and torch.equal(tokens, expected)
    assert steps == [(0, 1), (1, 3), (4, 1), (5, 2), (7, 4)], 'nothing after the last that is drawn'


def test_all_or_nothing_kept():
    model = model_of()
    given = torch.randint(CODES, (2, *SHAPE), generator=torch.Generator().manual_seed(2))
    every = request_of(model, [1, 2], given=given, keep=torch.ones(SHAPE, dtype=torch.bool))
    assert torch.equal(model.generate(every, multinomial, STRONG), given)
    none = request_of(model, [1, 2], given=given, keep=torch.zeros(SHAPE, dtype=torch.bool))
    assert torch.equal(
        model.generate(none, multinomial, STRONG), model.generate(request_of(model, [1, 2]), multinomial, STRONG)
    )


@pytest.mark.parametrize('kind', KINDS)
def test_no_token_leaves_the_segment_of_its_position(kind):
    """A network that prefers ids outside of the segment."""
    model = model_of(kind)
    sizes = model.tokens.codebooks

    class Contrary(CausalNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.vocabulary, self.length, self.dim = model.network.vocabulary, 99, 1
            self.embedded: list[int] = []

        def embed(self, ids: Tensor) -> Tensor:
            assert (ids >= 0).all() and (ids < self.vocabulary).all()
            self.embedded.extend(ids.flatten().tolist())
            return ids[..., None].float()

        def make_cache(self, rows: int, length: int) -> None:
            return None

        def step(self, embedded: Tensor, start: int, cache: None) -> Tensor:
            t = start + embedded.shape[1] - 1
            logits = torch.full((len(embedded), self.vocabulary), 50.0)
            first = model.segments.starts[0] + sum(sizes[: t % len(sizes)])
            logits[:, first : first + sizes[t % len(sizes)]] = -50.0
            return logits

    model.network = Contrary()
    model.__dict__.pop('class_embedding', None)
    if not model.joint:
        model.start_of = lambda label: torch.zeros(len(label), 1, 1)
    tokens = model.generate(request_of(model, list(range(40))), multinomial, NONE).flatten(1)
    for depth, size in enumerate(sizes):
        found = tokens[:, depth :: len(sizes)].unique().tolist()
        assert found == list(range(size)), 'each of its segment occurs, none besides'


# learning


@pytest.mark.parametrize('kind', KINDS)
def test_forward_shows_each_position_what_stands_before_it(kind):
    model = model_of(kind)
    sizes = model.tokens.codebooks
    generator = torch.Generator().manual_seed(5)
    columns = [torch.randint(sizes[t % len(sizes)], (3,), generator=generator) for t in range(model.positions)]
    flat = torch.stack(columns, 1)
    label = torch.tensor([0, 3, 1]) if model.classes else None
    predicted = model(flat.view(3, *model.tokens.shape), condition_of(label))
    assert predicted.mask is None and predicted.targets.shape == flat.shape
    for t in range(model.positions):
        expected = logits_of(model, flat, label, t).log_softmax(-1).gather(1, flat[:, t : t + 1])
        found = predicted.logits[:, t].log_softmax(-1).gather(1, predicted.targets[:, t : t + 1])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if kind == 'deep':
        assert predicted.logits.shape == (3, 12, 23)
        assert (predicted.logits > -torch.inf).sum(-1)[0].tolist() == [6, 13, 4] * 4
    else:
        assert predicted.logits.shape == (3, 15, CODES) and torch.equal(predicted.targets, flat)


def test_equal_codebooks_have_logits_of_one_codebook():
    model = Autoregressive(network_of(18, 12), (2, 2), (6, 6, 6), 2).eval()
    tokens = torch.randint(6, (2, 2, 2, 3), generator=torch.Generator().manual_seed(0))
    predicted = model(tokens, Condition(torch.tensor([0, 1])))
    assert predicted.logits.shape == (2, 12, 6) and torch.equal(predicted.targets, tokens.flatten(1))
    for t in range(12):
        torch.testing.assert_close(predicted.logits[:, t], logits_of(model, tokens.flatten(1), torch.tensor([0, 1]), t))


def test_a_joint_vocabulary_can_be_learned_as_a_language():
    """The loss of Hugging Face over the whole sequence, labels = inputs, with logits of all ids."""
    model = model_of('joint', predicts='vocabulary')
    tokens, label = torch.randint(CODES, (3, *SHAPE), generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1])
    predicted = model(tokens, condition_of(label))
    ids = torch.cat([label[:, None], tokens.flatten(1) + CLASSES + 1], 1)
    logits = model.network(model.network.embed(ids[:, :-1]))
    expected = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(F.cross_entropy(predicted.logits.flatten(0, 1), predicted.targets.flatten()), expected)
    restricted = model_of('joint')(tokens, condition_of(label))
    torch.testing.assert_close(restricted.logits, logits[..., CLASSES + 1 :])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['prefix', 'joint'])
@pytest.mark.parametrize('rate', [0.0, 0.25])
def test_labels_are_dropped_in_training_at_their_rate(kind, rate, monkeypatch):
    model = model_of(kind, label_drop=rate)
    given = []
    monkeypatch.setattr(model, 'start_of', lambda label: given.append(label) or torch.zeros(len(label), 1, 16))
    label = torch.arange(2000) % CLASSES
    tokens = torch.zeros(2000, *SHAPE, dtype=torch.int64)
    torch.manual_seed(0)
    model.train()(tokens, Condition(label))
    torch.manual_seed(0)
    model.train()(tokens, Condition(label))
    model.eval()(tokens, Condition(label))
    dropped = given[0] == CLASSES
    assert torch.equal(given[0][~dropped], label[~dropped]) and torch.equal(given[0], given[1])
    assert abs(dropped.float().mean() - rate) < 0.03  # three standard deviations
    assert torch.equal(given[2], label), 'never in evaluation'


def test_ids_of_a_joint_vocabulary():
    """Classes, then the null class if there is one, then image tokens."""
    for rate, first in ((0.1, CLASSES + 1), (0.0, CLASSES)):
        model = model_of('joint', label_drop=rate)
        assert model.network.vocabulary == first + CODES
        seen = []
        model.network.embed = lambda ids, seen=seen, embed=model.network.embed: seen.append(ids) or embed(ids)
        tokens = torch.tensor([0, CODES - 1] * 7 + [0]).view(1, *SHAPE)
        model(tokens, Condition(torch.tensor([CLASSES - 1])))
        start, ids = seen
        assert start.tolist() == [[CLASSES - 1]]
        assert ids.tolist() == [[first + token for token in tokens.flatten().tolist()[:-1]]]


def test_ids_of_several_codebooks():
    segments = Segments((6, 13, 4), first=5)
    tokens = torch.tensor([[0, 0, 0, 5, 12, 3, 1]])
    assert segments.end == 28
    assert segments.ids(tokens).tolist() == [[5, 11, 24, 10, 23, 27, 6]]
    assert segments.ids(tokens[:, :4], 2).tolist() == [[24, 5, 11, 29]]
    assert segments.ids(tokens[:, :1], 4).tolist() == [[11]]
    assert segments.at(torch.arange(28)[None], 7).tolist() == [list(range(11, 24))]
    assert segments.targets(tokens[:, :6]).tolist() == [[0, 6, 19, 5, 18, 22]]


def test_the_null_class_learns_when_labels_are_dropped_and_only_it():
    model = model_of(label_drop=0.999).train()
    torch.manual_seed(0)
    predicted = model(torch.zeros(6, *SHAPE, dtype=torch.int64), Condition(torch.arange(6) % CLASSES))
    F.cross_entropy(predicted.logits.flatten(0, 1), predicted.targets.flatten()).backward()
    assert (model.class_embedding.weight.grad.abs().sum(1) > 0).tolist() == [False] * CLASSES + [True]


# around it


def test_images_of_no_class_are_those_of_the_null_class():
    model = model_of()
    null = Wanted([1, 2], 7, Condition(torch.tensor([CLASSES] * 2)))
    assert torch.equal(model.generate(Wanted([1, 2], 7), greedy, NONE), by_hand(model, null, greedy, NONE))


@pytest.mark.parametrize('kind', KINDS)
def test_bf16_runs_and_stays_inside(kind):
    model = model_of(kind).to(torch.bfloat16)
    guidance = STRONG if model.classes else NONE
    tokens = model.generate(request_of(model, [0, 1, 2]), partial(multinomial, top_k=4), guidance)
    assert tokens.shape == (3, *model.tokens.shape) and (tokens >= 0).all() and (tokens < CODES).all()
    with torch.autocast('cpu', torch.bfloat16):
        tokens = model_of(kind).generate(request_of(model, [0, 1, 2]), multinomial, guidance)
    assert (tokens >= 0).all() and (tokens < CODES).all()


def test_an_empty_batch_has_no_tokens():
    assert model_of().generate(Wanted([], 0, Condition(torch.zeros(0, dtype=torch.int64))), greedy, STRONG).shape == (
        0,
        *SHAPE,
    )


def test_it_builds_on_the_meta_device_and_starts_anew_after_it():
    with torch.device('meta'):
        model = Autoregressive(LlamaNetwork(CODES, 16, 1, 2, length=15), SHAPE, (CODES,), CLASSES)
        free = Autoregressive(LlamaNetwork(CODES, 16, 1, 2, length=15), SHAPE, (CODES,))
    assert model.class_embedding.weight.shape == (CLASSES + 1, 16) and free.start.shape == (16,)
    model.to_empty(device='cpu').reset_parameters()
    assert 0.01 < model.class_embedding.weight.std() < 0.03


def test_broken_logits_are_reported():
    model = model_of()
    nn.init.constant_(model.network.norm.weight, float('nan'))
    for sampler in (greedy, multinomial, partial(multinomial, top_k=3)):
        with pytest.raises(RunFailure, match='NaN'):
            model.generate(request_of(model, [0, 1]), sampler, NONE)


def test_what_cannot_be_drawn_is_refused():
    tokens, keep = torch.zeros(2, *SHAPE, dtype=torch.int64), torch.ones(SHAPE, dtype=torch.bool)
    keep[-1, -1] = False
    model = model_of()
    for category in ([0, CLASSES], [-1, 0]):
        with pytest.raises(UserError, match='among the 4 classes'):
            model.generate(Wanted([0, 1], 0, Condition(torch.tensor(category))), greedy, NONE)
    with pytest.raises(UserError, match='one category per image'):
        model.generate(Wanted([0, 1], 0, Condition(torch.tensor([0]))), greedy, NONE)
    with pytest.raises(UserError, match='both'):
        model.generate(request_of(model, [0, 1], given=tokens), greedy, NONE)
    with pytest.raises(UserError, match='shape'):
        model.generate(request_of(model, [0, 1], given=tokens[:1], keep=keep), greedy, NONE)
    for wrong in (-1, CODES):
        with pytest.raises(UserError, match='not in the codebook'):
            model.generate(request_of(model, [0, 1], given=torch.full_like(tokens, wrong), keep=keep), greedy, NONE)
    with pytest.raises(UserError, match='label_drop'):
        model_of(label_drop=0.0).generate(request_of(model, [0, 1]), greedy, STRONG)
    free = model_of('free')
    with pytest.raises(UserError, match='guidance needs classes'):
        free.generate(Wanted([0], 0), greedy, STRONG)
    with pytest.raises(UserError, match='has no classes'):
        free.generate(Wanted([0], 0, Condition(torch.tensor([0]))), greedy, NONE)


@pytest.mark.parametrize(
    ('options', 'vocabulary', 'message'),
    [
        ({}, CODES + 1, 'a vocabulary of 13 and at least 15 positions'),
        ({}, CODES - 1, 'a vocabulary of 13 and at least 15 positions'),
        (dict(cells=(4, 4)), CODES, 'at least 16 positions'),
        (dict(vocabulary='joint'), CODES + CLASSES, 'a vocabulary of 18'),
        (dict(vocabulary='joint', label_drop=0.0), CODES + CLASSES + 1, 'a vocabulary of 17'),
        (dict(vocabulary='joint', classes=0), CODES, 'needs classes'),
        (dict(vocabulary='both'), CODES, "'both'"),
        (dict(predicts='all'), CODES, "'all'"),
        (dict(label_drop=1.0), CODES, 'label_drop'),
        (dict(cells=(5,), codebooks=(4, 4, 4, 4)), 16, 'at least 20 positions'),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, vocabulary, message):
    settings = dict(cells=SHAPE, codebooks=(CODES,), classes=CLASSES) | options
    with pytest.raises(ConfigError, match=message):
        Autoregressive(network_of(vocabulary, 15), **settings)
