"""Several conditions at once: what is joined, independent rates, refusals, and drawing by several."""

from __future__ import annotations

import pytest
import torch

from tests.conditioners.test_layout import boxes
from tests.conditioners.test_texts import encoder
from vq.conditioners.classes import ClassConditioner
from vq.conditioners.layout import BoxConditioner
from vq.conditioners.mixed import MixedConditioner
from vq.conditioners.text import TextConditioner
from vq.core.conditions import Condition
from vq.core.errors import ConfigError, UserError
from vq.interfaces.conditions import Asked
from vq.registries import VQConditionerRegistry
from vq.tasks.asked import condition_of

CPU = torch.device('cpu')


def mixed(drop: float = 0.1, layout: float = 0.2, text: float = 0.4) -> MixedConditioner:
    torch.manual_seed(0)
    parts = dict(layout=BoxConditioner(3, 5, image_size=64, drop=layout), text=TextConditioner(encoder(), drop=text))
    return MixedConditioner({**parts, 'class': ClassConditioner(4, 6)}, drop)


def whole() -> Condition:
    found = boxes()
    found.text, found.category = ['a boat', 'seven'], torch.tensor([1, 3])
    return found


def test_it_gives_what_its_parts_give() -> None:
    part = mixed()
    found, layout, text, vector = part(whole(), 2), *(one(whole(), 2) for one in part.parts.values())
    assert torch.equal(found.layout.boxes, layout.layout.boxes) and torch.equal(found.layout.there, layout.layout.there)
    assert torch.equal(found.sequence, text.sequence) and torch.equal(found.vector, vector.vector) and found.maps is None
    assert part.kinds == ('layout', 'text', 'classes') and part.classes == 4
    two = MixedConditioner(dict(a=TextConditioner(encoder()), b=TextConditioner(encoder())))(whole(), 2)
    assert torch.equal(two.sequence, torch.cat([text.sequence] * 2, 1))


def test_each_part_loses_its_own_rows() -> None:
    part, given = mixed(), whole()
    given.lost = torch.tensor([[True, False, False], [False, True, True]])
    found, none, kept = part(given, 2), part(None, 2), part(whole(), 2)
    assert found.layout.there.any(1).tolist() == [False, True]
    torch.testing.assert_close(found.sequence, torch.stack([kept.sequence[0], none.sequence[1]]))
    assert torch.equal(found.vector, torch.stack([kept.vector[0], none.vector[1]]))
    without = part(given.without(torch.tensor([False, True])), 2)
    assert not without.layout.there.any() and torch.equal(without.vector, torch.stack([kept.vector[0], none.vector[1]]))


def test_rates_over_ten_thousand_rows() -> None:
    """All at once at one rate, and beside it each part at its own, independently."""
    part, rows = mixed().train(), 10_000
    numbers = torch.rand(rows, part.numbers, generator=torch.Generator().manual_seed(1))
    given = part.dropped(Condition(category=torch.zeros(rows).long()), numbers)
    assert given is not None and given.null is not None and given.lost is not None
    assert abs(given.null.float().mean() - 0.1) < 0.01
    for number, rate in enumerate((0.2, 0.4, 0.1)):
        assert abs(given.lost[:, number].float().mean() - rate) < 0.015
    both = given.lost[:, 0] & given.lost[:, 1]
    assert abs(both.float().mean() - 0.2 * 0.4) < 0.01
    assert part.eval().dropped(given, numbers) is given


def test_settings_pass_to_parts_that_take_them() -> None:
    small = dict(type='CLIPText', dim=16, depth=1, heads=2, length=4, vocabulary=257, tokenizer='bytes')
    text = dict(type='TextConditioner', encoder=small)
    parts = dict(layout=dict(type='BoxConditioner', labels=3), text=text)
    config = dict(type='MixedConditioner', parts=parts, layout_dim=7, image_size=(32, 48), dim=9)
    found = VQConditionerRegistry.build(config | dict(sequence_dim=16), 'conditioner')
    assert found.parts['layout'].layout_dim == 7 and found.parts['layout'].image_size == (32, 48)
    with pytest.raises(ConfigError, match='texts are of 16 channels'):
        VQConditionerRegistry.build(config | dict(sequence_dim=12), 'conditioner')


def test_what_does_not_fit_says_so() -> None:
    with pytest.raises(ConfigError, match='0 parts and drop'):
        MixedConditioner({})
    with pytest.raises(ConfigError, match='is one itself'):
        MixedConditioner(dict(inner=mixed()))
    two = MixedConditioner(dict(a=BoxConditioner(3, 5, image_size=64), b=BoxConditioner(3, 5, image_size=64)))
    with pytest.raises(ConfigError, match='2 conditioners give a layout'):
        two(boxes(), 2)


def test_images_are_drawn_by_all_that_is_asked_for() -> None:
    kinds = ('layout', 'text')
    asked = Asked(text=['a', 'b', 'c'], layout=boxes(), negative=['dark'])
    found = condition_of(asked, kinds, 0, [1, 2, 5], CPU)
    assert found is not None and found.text == ['b', 'c', 'c'] and found.negative == ['dark'] * 3
    assert found.boxes_mask is not None and found.boxes_mask.tolist() == [[True, False], [True, True], [True, False]]
    alone = condition_of(Asked(negative=['dark']), kinds, 0, [0], CPU)
    assert alone is not None and alone.text == [''] and alone.boxes is None
    assert condition_of(Asked(), kinds, 0, [0], CPU) is None
    for wrong, words in (
        (Asked(classes=[1]), 'classes are asked for, and this model takes layouts, texts'),
        (Asked(text=['a'], negative=[]), 'no negative text is given'),
    ):
        with pytest.raises(UserError, match=words):
            condition_of(wrong, kinds, 0, [0], CPU)
    with pytest.raises(UserError, match='this model takes no texts'):
        condition_of(Asked(layout=boxes(), negative=['dark']), ('layout',), 0, [0], CPU)


def test_a_page_finds_what_it_draws_layouts_with() -> None:
    assert mixed().labels == 3 and mixed().image_size == (64, 64)
    assert not hasattr(MixedConditioner(dict(a=TextConditioner(encoder()))), 'labels')
