"""Attention within regions: equal to a loop over boxes, batches equal single images, and a UNet that it leaves as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.unet import region_attention
from vq.denoisers.unet.attention import cells_of, map_of
from vq.denoisers.unet.layout_cells import covered
from vq.denoisers.unet.network import UNet
from vq.denoisers.unet.region_attention import RegionAttention
from vq.interfaces import Conditioned
from vq.interfaces.conditions import Layout

CHANNELS, DIM, CLASSES = 16, 6, 5
COUNTS = (4, 0, 1)


def layout(counts: tuple[int, ...] = COUNTS) -> Layout:
    """A row for each count, with noise where no box is."""
    stream = torch.Generator().manual_seed(0)
    rows, most = len(COUNTS), max(COUNTS)
    corners, sizes = torch.rand(rows, most, 2, generator=stream) * 0.7, torch.rand(rows, most, 2, generator=stream) * 0.6
    categories = torch.randint(CLASSES, (rows, most), generator=stream)
    there = torch.arange(most) < torch.tensor(COUNTS)[:, None]
    found = Layout(torch.randn(CLASSES + 1, DIM, generator=stream), torch.cat([corners, sizes], 2), categories, there)
    return found if counts == COUNTS else found._replace(there=torch.arange(most) < torch.tensor(counts)[:, None])


def made(variant: str = 'layout_partial_v2', heads: int = 2, **settings: Any) -> RegionAttention:
    torch.manual_seed(1)
    block = RegionAttention(CHANNELS, DIM, variant, groups=4, heads=heads, **settings)
    for parameter in block.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.4)
    return block.eval()


def features(rows: int = 3, height: int = 6, width: int = 8) -> Tensor:
    return torch.randn(rows, CHANNELS, height, width, generator=torch.Generator().manual_seed(2))


def by_a_loop(block: RegionAttention, x: Tensor, given: Layout) -> Tensor:
    """Image by image, box by box, head by head, on the cells of each box alone."""
    rows = []
    for row in range(len(x)):
        base = cells_of(block.norm(x[row : row + 1]))[0] @ block.qkv.weight.T + block.qkv.bias

        def attended(told: Tensor, cells: Tensor, base: Tensor = base, placed: Tensor | float = 0.0) -> Tensor:
            own = (base + block.prompt(told) + placed)[cells].unflatten(1, (block.heads, 3, -1))
            found = []
            for head in range(block.heads):
                q, k, v = own[:, head].unbind(1)
                found.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
            return torch.cat(found, 1)

        total = attended(given.table[-1], torch.ones(len(base), dtype=torch.bool))
        count = base.new_ones(len(base), 1) * (block.variant == 'layout_partial_v1')
        total = total.clone()
        for box, category, there in zip(given.boxes[row], given.categories[row], given.there[row], strict=True):
            if there:
                cells = covered(box, *x.shape[2:]).flatten()
                # the second variant forgets pass 0 where the first box lies
                own, after = 0.0, 0.0
                if block.place is not None:
                    places = places_by_hand(box, *x.shape[2:])
                    of_class = block.placed.of_class(given.table[category])
                    own = block.place(places)
                    after = torch.stack([block.placed.out(of_class * block.placed.of_place(place)) for place in places])[cells]
                total[cells] = total[cells] * (count[cells] > 0) + attended(given.table[category], cells, placed=own) + after
                count[cells] += 1
        rows.append(total / count.clamp(min=1))
    return x + map_of(block.proj(torch.stack(rows)), x)


def places_by_hand(box: Tensor, height: int, width: int) -> Tensor:
    """(height * width, 64): cos(i pi v) cos(k pi u), v and u the place of the middle of a cell in the box."""
    x, y, across, down = box.tolist()
    rows = []
    for row in range(height):
        for column in range(width):
            v, u = ((row + 0.5) / height - y) / max(down, 1e-6), ((column + 0.5) / width - x) / max(across, 1e-6)
            v, u = min(max(v, 0.0), 1.0), min(max(u, 0.0), 1.0)
            rows.append([math.cos(i * math.pi * v) * math.cos(k * math.pi * u) for i in range(8) for k in range(8)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize('gathered', [True, False])
@pytest.mark.parametrize('variant', ['layout_partial_v2', 'layout_partial_v1'])
@pytest.mark.parametrize(('heads', 'places'), [(1, False), (2, False), (2, True)])
def test_it_equals_a_loop_over_boxes_and_heads(
    variant: str, heads: int, places: bool, gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in its gradients, in fp64. Boxes overlap, and the box of one class is not told of the class of another."""
    monkeypatch.setattr(region_attention, 'gathers', lambda inside: gathered)
    block, x, given = made(variant, heads, places=places).double(), features().double(), layout()
    given = given._replace(table=given.table.double(), boxes=given.boxes.double())
    parameters = [*block.parameters()]
    found, expected = block(x, Conditioned(layout=given)), by_a_loop(block, x, given)
    close = dict(rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected, **close)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), parameters) for value in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize('variant', ['layout_partial_v2', 'layout_partial_v1', 'layout_no_partial'])
def test_a_batch_equals_single_images_and_no_box_is_the_null_pass(variant: str) -> None:
    block, x, given = made(variant), features(), layout()
    whole = block(x, Conditioned(layout=given))
    for row, count in enumerate(COUNTS):
        alone = Layout(given.table, *(value[row : row + 1, :count] for value in given[1:4]))
        torch.testing.assert_close(block(x[row : row + 1], Conditioned(layout=alone))[0], whole[row], rtol=1e-5, atol=1e-5)
    nothing = block(x, Conditioned(layout=layout((0, 0, 0))))
    labels = torch.full((3, 1, 1), CLASSES)
    null = made('segmentation')(x, Conditioned(layout=Layout(given.table, labels=labels)))
    torch.testing.assert_close(nothing, null, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole[1], nothing[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole[0], nothing[0], atol=1e-2)


def test_any_number_of_boxes_is_one_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pass 0 under masks; where cells are gathered pass 0 is one and all boxes together are another."""
    calls: list[int] = []
    plain = F.scaled_dot_product_attention

    def counted(*given: Any, **how: Any) -> Tensor:
        calls.append(1)
        return plain(*given, **how)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', counted)
    block, given = made(), layout()
    for gathered, expected in ((False, 1), (True, 2)):
        monkeypatch.setattr(region_attention, 'gathers', lambda inside, gathered=gathered: gathered)
        for boxes in (1, 4, 20):
            repeated = [value.repeat_interleave(-(-boxes // 4), 1)[:, :boxes] for value in given[1:4]]
            calls.clear()
            block(features(), Conditioned(layout=Layout(given.table, *repeated)))
            assert len(calls) == expected


@pytest.mark.parametrize('own_class', [True, False])
def test_gathered_cells_give_what_masks_give(own_class: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a box lies beside the image or no image has a box."""
    block, x, given = made(own_class=own_class), features(), layout()
    beside = given._replace(boxes=given.boxes + torch.tensor([1.5, 0, 0, 0]))
    for one in (given, given._replace(there=given.there[:, [3, 0, 1, 2]]), layout((0, 0, 0)), beside):
        found = []
        for gathered in (True, False):
            monkeypatch.setattr(region_attention, 'gathers', lambda inside, gathered=gathered: gathered)
            found.append(block(x, Conditioned(layout=one)))
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('variant', ['layout_partial_v2', 'layout_partial_v1'])
def test_covered_cells_ask_nothing_of_the_first_pass(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where boxes cover most of all images, or everything; gradients as well."""
    block, x, given = made(variant), features(), layout((4, 4, 4))
    everything = given._replace(boxes=torch.tensor([0.0, 0, 1, 1]).expand_as(given.boxes))
    asked: list[int] = []
    attended = RegionAttention._attended

    def counted(self: Any, qkv: Tensor, seen: Tensor | None = None, asking: Tensor | None = None) -> Tensor:
        asked.append(qkv.shape[1] if asking is None else asking.shape[1])
        return attended(self, qkv, seen, asking)

    monkeypatch.setattr(RegionAttention, '_attended', counted)
    for one, least in ((given, 1), (everything, 0)):
        found, gradients = [], []
        for dense in (1.0, 0.0):  # below this share, and above it
            monkeypatch.setattr(region_attention, 'DENSE', dense)
            asked.clear()
            found.append(block(x, Conditioned(layout=one)))
            gradients.append(torch.autograd.grad(found[-1].square().sum(), [*block.parameters()]))
            if dense and variant == 'layout_partial_v2':
                assert len(asked) == 1 + least and (not least or asked[0] < 48)
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_network_with_new_adapters_is_what_it_was() -> None:
    """The same keys of the base, the same weights from one seed, and the same output to the bit."""
    size: dict[str, Any] = dict(channels=3, cells=(8, 8), width=16, multipliers=(1, 2), res_blocks=1, attention_at=(2,))
    adapted: dict[str, Any] = dict(adapter_type='RegionAttention', adapters_at=(1, 2), layout_dim=DIM)
    networks = []
    for more in ({}, adapted):
        torch.manual_seed(0)
        networks.append(UNet(**size, **more).eval())
    base, whole = networks
    nn.init.normal_(base.out.weight)
    missing, unexpected = whole.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected and all(key.startswith('adapters.') for key in missing)
    assert {key.split('.')[1] for key in missing} == {'down_0_0', 'down_1_0', 'up_0_0', 'up_0_1', 'up_1_0', 'up_1_1'}
    z, t = torch.randn(3, 3, 8, 8), torch.rand(3)
    conditioned = Conditioned(layout=layout())
    assert torch.equal(whole(z, t, conditioned).value, base(z, t).value)
    assert whole.takes == ('vector', 'layout') and base.takes == ('vector',)
    nn.init.normal_(whole.adapters['down_1_0'].proj.weight)
    assert not torch.equal(whole(z, t, conditioned).value, base(z, t).value)


@pytest.mark.slow
def test_a_network_with_adapters_is_one_graph() -> None:
    """Compiled it has masks in place of gathered cells, for any number of boxes, and its output is the same."""
    torch.manual_seed(0)
    size: dict[str, Any] = dict(channels=3, cells=(8, 8), width=16, multipliers=(1, 2), res_blocks=1, attention_at=(2,))
    network = UNet(**size, adapter_type='RegionAttention', adapters_at=(1,), layout_dim=DIM).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    compiled = torch.compile(network, backend='eager', fullgraph=True)
    z, t = torch.randn(3, 3, 8, 8), torch.rand(3)
    with torch.no_grad():
        for given in (layout(), layout((0, 0, 0))):
            expected = network(z, t, Conditioned(layout=given)).value
            torch.testing.assert_close(compiled(z, t, Conditioned(layout=given)).value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_does_not_fit_says_so() -> None:
    with pytest.raises(ConfigError, match='layout_dim of the UNet is None'):
        UNet(3, (8, 8), 16, (1,), adapter_type='RegionAttention', adapters_at=(1,), attention_at=())
    with pytest.raises(ConfigError, match='adapters_at has the factor 2'):
        UNet(3, (8, 8), 16, (1,), adapter_type='RegionAttention', adapters_at=(2,), attention_at=(), layout_dim=4)
    with pytest.raises(ConfigError, match="the variant 'segmentation' has no box alone"):
        RegionAttention(CHANNELS, DIM, 'segmentation', places=True)
    with pytest.raises(ConfigError, match="variant is 'v2'"):
        RegionAttention(CHANNELS, DIM, 'v2')
    with pytest.raises(ConfigError, match='reads boxes, and the layout has none'):
        made()(features(), Conditioned(layout=Layout(layout().table, labels=torch.zeros(3, 8, 8).long())))
