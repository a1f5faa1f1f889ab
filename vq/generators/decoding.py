"""Autoregressive decoding: the steps of a causal network with its cache, on a GPU replayed from a CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vq.interfaces import CausalNetwork


class Decoding:
    """``advance`` appends ids to the cached sequence and returns the logits of the next position.

    ``start`` (R, 1, dim) is the embedding at position 0. Ids are (B, T); if R is 2 B, both halves of the batch get the same
    ids. ``length`` is the largest number of positions.
    """

    def __init__(self, network: CausalNetwork, start: Tensor, length: int, graph: bool | None = None) -> None:
        self.network, self.start = network, start
        self.rows, self.position = len(start), 0
        self.cache = network.make_cache(self.rows, length)
        by_graph = start.is_cuda if graph is None else graph
        self._replay = GraphedStep(network, self.cache) if by_graph and hasattr(network, 'step_at') else None

    def advance(self, ids: Tensor) -> Tensor:
        """ids (B, T) of the positions from ``position`` on (T = 0: only the start) -> logits (R, V) of the last position."""
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
        """Drop all but the first ``rows`` of the batch. If the cache cannot be cut, all rows are kept and computed."""
        cut = getattr(self.cache, 'first_rows', None)
        if cut is None:
            return
        self.cache, self.rows = cut(rows), rows
        if self._replay is not None:
            self._replay = GraphedStep(self.network, self.cache)


class GraphedStep:
    """``network.step_at`` of one position with fixed input tensors: a CUDA graph, recorded at the first call and replayed.

    On other devices it calls ``step_at`` directly, so tests can compare it with ``step``. The graph itself has never been run
    on a GPU. The next call overwrites the returned logits.
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
        """Warm up twice on a side stream, then record. The replay writes the same cache entries as the warm-up."""
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
