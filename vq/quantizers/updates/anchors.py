"""CVQ's anchors, the features of a step that codes can move to, gathered over micro-batches and ranks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core import collectives
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers.search import Metric, nearest_feature
from vq.quantizers.soft_assignment import DEVICE_BUDGET_BYTES, row_tiles
from vq.quantizers.updates.base import accept
from vq.quantizers.updates.draw import gumbel_noise, keep_best, places_of, priorities, winners

CPU_TILE_BYTES = 8 * 2**20  # a tile of noise that stays in the CPU cache
AnchorKind = Literal['nearest', 'multinomial', 'cached']


class Anchors(nn.Module):
    """``add`` is called in every training forward, ``collect`` and ``clear`` once per step."""

    def add(self, features: Tensor, codebook: Tensor) -> None:
        """features (N, C), codebook (K, C). No collective."""
        raise NotImplementedError

    def collect(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors (K, C) and the sum of ``counts`` (K,), both over all ranks, by two all-reduces."""
        raise NotImplementedError

    def clear(self) -> None:
        """Empty the state of the step."""
        raise NotImplementedError

    def advance(self, anchors: Tensor, ok: Tensor) -> None:
        """Called after an update with these anchors, which took place only if ``ok``."""

    def reset(self, codebook: Tensor) -> None:
        """Back to the initial state."""
        self.clear()


class NearestAnchors(Anchors):
    """The nearest feature of the step.

    The first all-reduce finds the lowest cost per code, the second sums only the anchors of that cost. A single collective
    would have to gather the anchors of every rank: the size of the codebook times the number of ranks.
    """

    anchors: Tensor  # (K, C) the best features so far in this step, on this rank
    cost: Tensor  # (K,) of these features; lower is better

    def __init__(self, codebook: Tensor, metric: Metric) -> None:
        super().__init__()
        self.metric: Metric = metric
        weight = codebook.detach()
        self.register_buffer('anchors', torch.zeros_like(weight), persistent=False)
        self.register_buffer('cost', torch.full_like(weight[:, 0], torch.inf), persistent=False)

    @torch.no_grad()
    def add(self, features: Tensor, codebook: Tensor) -> None:
        index, cost = self.choose(features, codebook)
        better = cost < self.cost  # strict: on ties the first feature stays, as in one large batch
        accept(self.anchors, features[index], better[:, None])
        accept(self.cost, cost, better)

    def choose(self, features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        """For each code the index (K,) of the best of the features (N, C), and its cost (K,)."""
        index = nearest_feature(features, codebook, self.metric)
        anchors = features[index]
        if self.metric == 'cosine':
            anchors, codebook = F.normalize(anchors, dim=1), F.normalize(codebook, dim=1)
        return index, (anchors - codebook).square().sum(1)

    @torch.no_grad()
    def collect(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        best = collectives.all_reduce(self.cost, 'min')
        mine = (self.cost == best).to(self.anchors.dtype)  # (K,) 1 or 0; 1 on several ranks only for exact ties
        totals = collectives.all_reduce(torch.cat([self.anchors * mine[:, None], mine[:, None], counts[:, None]], dim=1))
        return totals[:, :-2] / totals[:, -2:-1], totals[:, -1]  # ties: their mean, the same on every rank

    def clear(self) -> None:
        self.anchors.zero_()
        self.cost.fill_(torch.inf)


class MultinomialAnchors(NearestAnchors):
    """A feature of the step, drawn with p_i = softmax_i(s_ik) over its features i; s_ik is -|x_i - c_k|^2 or the cosine.

    By the Gumbel-max trick argmax_i (s_ik + g_ik) has this distribution. A maximum can be taken piece by piece, so
    micro-batches and ranks together draw from the softmax over all features, and no N x K matrix is stored. The noise g_ik
    is a function of seed, step, code, and the feature's place in the global batch, so the draw does not depend on how the
    batch is split.
    """

    seen: Tensor  # () int64, features of this step on this rank
    number: Tensor  # () int64, number of updates so far

    def __init__(self, codebook: Tensor, metric: Metric, seed: int) -> None:
        super().__init__(codebook, metric)
        self.seed = seed
        zero = codebook.detach().new_zeros((), dtype=torch.int64)
        self.register_buffer('seen', zero.clone(), persistent=False)
        self.register_buffer('number', zero.clone())

    def choose(self, features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        places = places_of(len(features), self.seen, features.device)
        self.seen.add_(len(features))
        function = _draw_operator if torch.compiler.is_compiling() else draw_anchors
        index, score = function(
            features,
            codebook.detach(),
            places,
            self.seed,
            self.number,
            self.metric == 'cosine',
            CPU_TILE_BYTES if features.device.type == 'cpu' else DEVICE_BUDGET_BYTES,
        )
        return index, -score

    def clear(self) -> None:
        super().clear()
        self.seen.zero_()

    def advance(self, anchors: Tensor, ok: Tensor) -> None:
        accept(self.number, self.number + 1, ok)

    def reset(self, codebook: Tensor) -> None:
        super().reset(codebook)
        self.number.zero_()


class CachedAnchors(Anchors):
    """A feature of the step, drawn uniformly without replacement. With fewer features than codes, some codes get none; these
    are drawn uniformly too, and keep their anchor of an earlier step, at first their initial value.
    """

    cache: Tensor  # (K, C) the anchors of the step before
    pool: Tensor  # (K, C) features drawn so far in this step, on this rank
    priority: Tensor  # (K,) int64, 0 where the pool is still empty
    seen: Tensor  # () int64
    number: Tensor  # () int64

    def __init__(self, codebook: Tensor, seed: int) -> None:
        super().__init__()
        self.seed = seed
        weight = codebook.detach()
        zeros = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
        self.register_buffer('cache', weight.clone())
        self.register_buffer('pool', torch.zeros_like(weight), persistent=False)
        self.register_buffer('priority', zeros.clone(), persistent=False)
        self.register_buffer('seen', zeros.sum(), persistent=False)
        self.register_buffer('number', zeros.sum())

    @torch.no_grad()
    def add(self, features: Tensor, codebook: Tensor) -> None:
        places = places_of(len(features), self.seen, features.device)
        pool, priority = keep_best(self.pool, self.priority, features, priorities(places, self.seed, self.number))
        self.pool.copy_(pool)
        self.priority.copy_(priority)
        self.seen.add_(len(features))

    @torch.no_grad()
    def collect(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        drawn, there = winners(self.pool, self.priority)
        totals = collectives.all_reduce(torch.cat([drawn, counts[:, None]], dim=1))
        drawn, counts = totals[:, :-1], totals[:, -1]
        codes = torch.arange(len(drawn), device=drawn.device)
        order = torch.argsort(priorities(codes, self.seed + 1, self.number))  # which code gets the first feature, and so on
        anchors = self.cache.index_copy(0, order, torch.where(there[:, None], drawn, self.cache[order]))
        return anchors, counts

    def clear(self) -> None:
        for state in (self.pool, self.priority, self.seen):
            state.zero_()

    def advance(self, anchors: Tensor, ok: Tensor) -> None:
        accept(self.cache, anchors, ok)
        accept(self.number, self.number + 1, ok)

    def reset(self, codebook: Tensor) -> None:
        self.clear()
        self.cache.copy_(codebook)
        self.number.zero_()


def similarity(features: Tensor, codebook: Tensor, cosine: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(x' (N, C), c' (K, C), b (N,)) with s_ik = x'_i . c'_k + b_i, up to terms that are equal for all i."""
    if cosine:
        features, codebook = F.normalize(features, dim=1), F.normalize(codebook, dim=1)
        return features, codebook, torch.zeros_like(features[:, 0])
    centre = codebook.mean(0)  # subtracting it changes no distance, and makes the products more precise
    features = features - centre
    return features, (codebook - centre) * 2, -features.square().sum(1)


def draw_anchors(
    features: Tensor, codebook: Tensor, places: Tensor, seed: int, number: Tensor, cosine: bool, budget_bytes: int
) -> tuple[Tensor, Tensor]:
    """argmax_i (s_ik + g_ik) over features (N, C) at places (N,), and the maximum: (K,), (K,). A few codes at a time."""
    with torch.no_grad(), no_autocast(features.device), exact_matmul():
        x, c, b = similarity(features.float(), codebook.float(), cosine)
        numbers = torch.arange(len(c), device=c.device)
        found = []
        for tile in row_tiles(len(c), len(x), budget_bytes):
            scores = torch.addmm(b, c[tile], x.t())
            found.append((scores + gumbel_noise(places, numbers[tile], seed, number)).max(dim=1))
        return torch.cat([best.indices for best in found]), torch.cat([best.values for best in found])


# A custom operator: tracing into it, torch.compile would unroll the tiles and fail at the precision switch.
_draw_operator = torch.library.custom_op('vq::draw_anchors', draw_anchors, mutates_args=())


@_draw_operator.register_fake
def _(
    features: Tensor, codebook: Tensor, places: Tensor, seed: int, number: Tensor, cosine: bool, budget_bytes: int
) -> tuple[Tensor, Tensor]:
    return codebook.new_empty(len(codebook), dtype=torch.int64), torch.empty_like(codebook[:, 0])
