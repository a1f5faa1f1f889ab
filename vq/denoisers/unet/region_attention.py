"""Attention within the regions of a layout: an adapter that tells a UNet what lies where."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, listing
from vq.denoisers.unet.attention import cells_of, head_count, map_of
from vq.denoisers.unet.layout_cells import PLACES, class_map, covers, places_of, waves_in
from vq.denoisers.unet.residual import norm_of
from vq.interfaces import ConditionBlock
from vq.interfaces.conditions import Conditioned, Layout
from vq.nn.recompute import Recomputed
from vq.registries import VQUNetBlockRegistry

Variant = Literal['layout_partial_v2', 'layout_partial_v1', 'layout_partial', 'layout_no_partial', 'segmentation']
DENSE = 0.75  # if more cells than this share ask in pass 0, all of them do: gathering them would cost more


def gathers(inside: Tensor) -> bool:
    """Whether the cells of boxes are gathered, which is less work than masks. Their number is read on the host, for which
    other devices would wait, and a compiled graph would be one for each number."""
    return inside.device.type == 'cpu' and not torch.compiler.is_compiling()


class Boxes(NamedTuple):
    """What the passes of boxes are told."""

    inside: Tensor  # (B, M, N) bool: the cells of each box
    told: Tensor  # (B, M, 1 or N, 3 C): added to q, k and v
    classes: Tensor  # (B, M, 1, D): the vector of each box
    waves: tuple[Tensor, Tensor] | None  # of rows (B, M, height, WAVES) and of columns


class Placed(nn.Module):
    """What a class has at a place w of its box:  out((A p) * (B w)),  p the vector of the class.

    A sum of what p and what w give would be one shape for all classes, moved by a number of each.
    """

    def __init__(self, channels: int, layout_dim: int, rank: int = 64) -> None:
        super().__init__()
        self.of_class, self.of_place = nn.Linear(layout_dim, rank, bias=False), nn.Linear(PLACES, rank, bias=False)
        self.out = nn.Linear(rank, channels, bias=False)

    def forward(self, vectors: Tensor, places: Tensor) -> Tensor:
        """Vectors of classes (..., 1, D), places (..., N, PLACES) -> (..., N, C)."""
        found: Tensor = self.out(self.of_class(vectors) * self.of_place(places))
        return found


@VQUNetBlockRegistry.register_()
class RegionAttention(Recomputed, ConditionBlock):
    """y = x + proj(a),  a by ``variant``, of  q, k, v = qkv(norm(x)) + prompt(p),  p (N, D) vectors of classes.

    (Cheng et al. 2023, LayoutDiffuse.) Pass 0 attends over all cells, and p is the vector of nothing in each of them. The pass
    of a box attends over the cells of this box, and p is the vector of its class.

        layout_partial_v2   the mean over the boxes that cover a cell, and pass 0 where none does; layout_partial is the same
        layout_partial_v1   the mean over pass 0 and the boxes that cover a cell
        layout_no_partial   one attention over all cells; p is the mean over the boxes that cover a cell, of nothing if none
        segmentation        the same with maps of labels: p is the vector of the label of a cell

    ``places``: the pass of a box is also told where a cell lies within this box, by w, the 64 products
    cos(i pi v) cos(k pi u)  for v, u in [0, 1] down and across, and i, k = 0 to 7. A linear map of w is added to q, k, v, and
    what the class has at this place (``Placed``) to what the attention gives: a mean of v over the box has lost the place.
    Convolutions have to find it out otherwise, which takes a short training most of its steps.

    ``own_class=False``: in the pass of a box, p is the mean over all boxes that cover a cell, as in the published code, and
    boxes that overlap mix their classes.

    All boxes and heads are one attention: with pass 0 under masks, or on the CPU over the gathered cells of each box. ``proj``
    starts at zero: the network is then what it was without the adapter, to the bit. Without a layout there are no prompts.
    Rows of ``qkv`` and ``prompt`` run head by head, and within a head through q, k and v.
    """

    reads = ('layout',)

    def __init__(
        self,
        channels: int,
        layout_dim: int | None,
        variant: Variant = 'layout_partial_v2',
        own_class: bool = True,
        groups: int = 32,
        heads: int = 1,
        head_dim: int | None = None,
        places: bool = False,
    ) -> None:
        super().__init__()
        if places and variant in ('segmentation', 'layout_no_partial'):
            raise ConfigError(
                f"places are those within boxes, and the variant '{variant}' has no box alone", 'Set places=False.'
            )
        if variant not in get_args(Variant):
            raise ConfigError(f"variant is '{variant}'", f'It is one of: {listing(get_args(Variant))}.')
        if layout_dim is None:
            raise ConfigError(
                'a RegionAttention reads class vectors, and layout_dim of the UNet is None',
                'Set it to the channels of these vectors, e.g. 128.',
            )
        self.variant, self.own_class, self.heads = variant, own_class, head_count(channels, heads, head_dim)
        self.norm, self.qkv = norm_of(channels, groups), nn.Linear(channels, 3 * channels)
        self.prompt, self.proj = nn.Linear(layout_dim, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.place = nn.Linear(PLACES, 3 * channels, bias=False) if places else None
        self.placed = Placed(channels, layout_dim) if places else None
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    @property
    def zero_gate(self) -> Tensor:
        return self.proj.weight

    def compute(self, x: Tensor, condition: Conditioned | None) -> Tensor:
        return x + map_of(self.proj(self.mixed(x, None if condition is None else condition.layout)), x)

    def mixed(self, x: Tensor, layout: Layout | None) -> Tensor:
        """What ``proj`` takes: (B, N, C)."""
        base = self.qkv(cells_of(self.norm(x)))  # (B, N, 3 C)
        height, width = x.shape[2:]
        if layout is None:
            return self._attended(base)
        if layout.boxes is None and self.variant != 'segmentation':
            raise ConfigError(
                f"the variant '{self.variant}' reads boxes, and the layout has none", "Set variant='segmentation' for labels."
            )
        if self.variant in ('segmentation', 'layout_no_partial'):
            return self._attended(base + self.prompt(class_map(layout, height, width)))
        return self._by_regions(base, layout, height, width)

    def _by_regions(self, base: Tensor, layout: Layout, height: int, width: int) -> Tensor:
        assert layout.categories is not None
        inside = covers(layout, height, width)
        classes = layout.table[layout.categories][:, :, None]
        told = self.prompt(classes if self.own_class else class_map(layout, height, width)[:, None])
        boxes = Boxes(inside, told, classes, None if self.place is None else waves_in(layout, height, width))
        nothing = base + self.prompt(layout.table[-1])
        count = inside.sum(1)[..., None]  # (B, N, 1)
        first, total = (count >= 0, count + 1) if self.variant == 'layout_partial_v1' else (count == 0, count.clamp(min=1))
        if gathers(inside):
            return (self._first_pass(nothing, first) + self._sum_of_gathered(base, boxes)) / total
        return self._masked(base, boxes, nothing, first, total)

    def _first_pass(self, nothing: Tensor, first: Tensor) -> Tensor:
        """Pass 0 where ``first`` (B, N, 1), and 0 elsewhere: (B, N, C). Cells that boxes cover ask nothing of it."""
        asks = first[..., 0]
        most = int(asks.sum(1).max())
        if most > DENSE * asks.shape[1]:
            return self._attended(nothing) * first
        found = nothing.new_zeros(*nothing.shape[:2], nothing.shape[2] // 3)
        if not most:
            return found
        cells = torch.argsort(asks.byte(), dim=1, descending=True, stable=True)[:, :most]  # (B, K), those that ask first
        return found.scatter(1, cells[..., None].expand(-1, -1, found.shape[2]), self._attended(nothing, asking=cells)) * first

    def _masked(self, base: Tensor, boxes: Boxes, nothing: Tensor, first: Tensor, total: Tensor) -> Tensor:
        """The mean over pass 0 and those of the boxes, (B, N, C): one attention under masks."""
        inside, told, placed = boxes.inside, boxes.told, None
        if boxes.waves is not None:
            rows, columns = boxes.waves
            places = places_of(rows[:, :, :, None], columns[:, :, None]).flatten(2, 3).to(base.dtype)  # (B, M, N, PLACES)
            told, placed = self._at_places(told, boxes.classes, places)
        passes = [nothing[:, None], (base[:, None] + told).expand(*inside.shape, -1)]
        qkv = torch.cat(passes, dim=1)  # (B, 1 + M, N, 3 C), pass 0 first
        # a box without a cell attends over all, to have a softmax; nothing of it is used
        everywhere = inside.new_ones(len(inside), 1, inside.shape[2])
        seen = torch.cat([everywhere, inside | ~inside.any(2, keepdim=True)], dim=1)
        found = self._attended(qkv.flatten(0, 1), seen.flatten(0, 1)).view(*qkv.shape[:3], -1)
        if placed is not None:
            found = torch.cat([found[:, :1], found[:, 1:] + placed], dim=1)
        parts = torch.cat([first.transpose(1, 2), inside], dim=1)
        mixed: Tensor = (found * (parts.to(found.dtype) / total.transpose(1, 2))[..., None]).sum(1)
        return mixed

    def _sum_of_gathered(self, base: Tensor, boxes: Boxes) -> Tensor:
        """The sum over the boxes of what their passes give, (B, N, C): one attention over the cells of each box alone."""
        count = boxes.inside.shape[2]
        images, numbers = boxes.inside.any(2).nonzero(as_tuple=True)  # R boxes that have a cell
        seen = boxes.inside[images, numbers]  # (R, N)
        most = int(seen.sum(1).max()) if len(images) else 0
        if not most:
            return base.new_zeros(*base.shape[:2], base.shape[2] // 3)
        cells = torch.argsort(seen.byte(), dim=1, descending=True, stable=True)[:, :most]  # (R, K), those of the box first
        there = seen.gather(1, cells)
        flat = (images[:, None] * count + cells).flatten()  # (R K,) among the cells of all images
        told, placed = boxes.told.expand(*boxes.inside.shape[:2], -1, -1)[images, numbers], None  # (R, 1 or N, 3 C)
        if told.shape[1] > 1:
            told = told.gather(1, cells[..., None].expand(-1, -1, told.shape[2]))
        if boxes.waves is not None:
            (rows, columns), box = boxes.waves, (images[:, None], numbers[:, None])
            width = columns.shape[2]
            places = places_of(rows[*box, cells // width], columns[*box, cells % width]).to(base.dtype)  # (R, K, PLACES)
            told, placed = self._at_places(told, boxes.classes[images, numbers], places)
        qkv = base.flatten(0, 1).index_select(0, flat).view(*cells.shape, -1) + told
        found = self._attended(qkv, there)
        found = (found if placed is None else found + placed) * there[..., None]
        summed = found.new_zeros(base.shape[0] * count, found.shape[2]).index_add(0, flat, found.flatten(0, 1))
        return summed.view(*base.shape[:2], -1)

    def _at_places(self, told: Tensor, classes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to q, k and v, and what to the result of the attention."""
        assert self.place is not None and self.placed is not None
        return told + self.place(places), self.placed(classes, places)

    def _attended(self, qkv: Tensor, seen: Tensor | None = None, asking: Tensor | None = None) -> Tensor:
        """(R, N, 3 C) -> (R, N, C).  ``seen`` (R, N) bool: the cells that are attended to. ``asking`` (R, K): the cells whose
        result is wanted, (R, K, C)."""
        q, k, v = qkv.view(*qkv.shape[:2], self.heads, 3, -1).permute(3, 0, 2, 1, 4).unbind(0)  # (R, heads, N, D)
        if asking is not None:
            q = q.gather(2, asking[:, None, :, None].expand(-1, self.heads, -1, q.shape[3]))
        mask = None if seen is None else seen[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
