"""A sequence that grows: the steps of a causal network with its cache, on a GPU replayed from a CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vq.interfaces import CausalNetwork


class Decoding:
    """``advance`` puts ids behind what is cached and gives the logits of what comes next.

    ``start`` (R, 1, dim) stands at position 0. Ids come as (B, T): where R is twice B, both halves of the batch get them.
    ``length`` is the number of positions at most.
    """

    def __init__(self, network: CausalNetwork, start: Tensor, length: int, graph: bool | None = None) -> None:
        self.network, self.start = network, start
        self.rows, self.position = len(start), 0
        self.cache = network.make_cache(self.rows, length)
        by_graph = start.is_cuda if graph is None else graph
        self._replay = GraphedStep(network, self.cache) if by_graph and hasattr(network, 'step_at') else None

    def advance(self, ids: Tensor) -> Tensor:
        """ids (B, T) of the positions from ``position`` on (T = 0 is for the start alone) -> logits (R, V) of the last."""
        embedded = self.network.embed(ids)
        if len(embedded) < self.rows:
            embedded = torch.cat([embedded, embedded])
        if not self.position:
            embedded = torch.cat([self.start.to(embedded.dtype), embedded], 1)
        count = embedded.shape[1]
        if self._replay is not None and count == 1:
            logits = self._replay(embedded, self.position)
        else:
            logits = self.network.step(embedded, self.position, self.cache)
        self.position += count
        return logits

    def keep_rows(self, rows: int) -> None:
        """Go on with the first ``rows`` of the batch, if the cache can be cut; else the others go on unread."""
        cut = getattr(self.cache, 'first_rows', None)
        if cut is None:
            return
        self.cache, self.rows = cut(rows), rows
        if self._replay is not None:
            self._replay = GraphedStep(self.network, self.cache)


class GraphedStep:
    """``network.step_at`` of one position with fixed inputs, recorded at its first call on a GPU and replayed after.

    Elsewhere it calls ``step_at``, which is how tests compare it with ``step``; the graph itself was not run on a GPU here.
    The logits it gives are overwritten by the next call.
    """

    def __init__(self, network: Any, cache: Any) -> None:
        self.network, self.cache = network, cache
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, embedded: Tensor, position: int) -> Tensor:
        if not embedded.is_cuda:
            number = torch.tensor(position, device=embedded.device)
            given: Tensor = self.network.step_at(embedded, number, self.cache)
            return given
        if self.graph is None:
            self._record(embedded, position)
        self.embedded.copy_(embedded)
        self.number.fill_(position)
        assert self.graph is not None
        self.graph.replay()
        return self.logits

    def _record(self, embedded: Tensor, position: int) -> None:
        """Twice on a side stream to warm up (it writes what the replay writes again), then into the graph."""
        self.embedded, self.number = embedded.clone(), torch.full((), position, device=embedded.device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.network.step_at(self.embedded, self.number, self.cache)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits: Tensor = self.network.step_at(self.embedded, self.number, self.cache)
