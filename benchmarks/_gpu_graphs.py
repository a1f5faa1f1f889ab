"""Compiled steps and CUDA graphs, in training and in decoding, against the same work without them."""

from __future__ import annotations

from typing import Any

import sampling as peers
import torch
from _common import must_be_equal, paired_ratio, rounded
from _gpu_clock import peak_mib, timed
from _gpu_running import Record
from _gpu_step import Training, comparable, difference, gradient_difference, images, small_model
from torch import Tensor

from vq.core.records import Batch
from vq.generators.decoding import Decoding
from vq.generators.networks.llama import LlamaNetwork

RATES = {'tokenizer': 5.4e-5, 'discriminator': 4.32e-4}
LEAST_FOR_COMPILATION = 20.0  # seconds
NEEDS_GPU = 'needs a GPU'


def graphs(record: Record) -> None:
    decoding(record)
    training(record)


def training(record: Record) -> None:
    """A training step in fp32: eager, compiled, and captured in a CUDA graph."""
    kind, quick = record.device.type, record.quick
    model, batch = small_model(8 if quick else 32), images(2 if quick else 8, 32 if quick else 64).to(record.device)
    # on a CPU the C++ compiler takes half a minute per network
    parts = None if kind == 'cuda' else ('tokenizer.quantizer',)
    sides = {'eager': Training(model, RATES, {'device': kind})}
    with comparable():
        expected, gradients, _ = sides['eager'].first(batch)

    def with_compilation(name: str, **how: Any) -> None:
        side = Training(model, RATES, {'device': kind, 'compile': {'parts': parts, **how}})
        with comparable():
            _, _, seconds = side.first(batch)
            for _ in range(2):  # the graph is captured in the second call, and replayed from the third on
                values, found, _ = side.first(batch)
        off, apart = difference(values, expected), gradient_difference(found, gradients)
        detail = f'losses to {off:.0e}, gradients to {apart:.0e} of the largest'
        must_be_equal(f'a step {name} and eager', off < 1e-3 and apart < 1e-2, detail)
        record.keep(f'{name}, first step in s', rounded(seconds))
        sides[name] = side

    record.may('the compiled step', LEAST_FOR_COMPILATION, lambda: with_compilation('compiled'))
    if kind == 'cuda':
        again = lambda: with_compilation('with CUDA graphs', mode='reduce-overhead')  # noqa: E731
        record.may('the step with CUDA graphs', LEAST_FOR_COMPILATION, again)
    else:
        record.note(f'the step with CUDA graphs: {NEEDS_GPU}')
    compare(record, sides, batch)


def compare(record: Record, sides: dict[str, Training], batch: Batch) -> None:
    memory = {name: peak_mib(record.device, lambda side=side: side.step(batch)) for name, side in sides.items()}
    times = timed(record, {name: lambda side=side: side.step(batch) for name, side in sides.items()}, warmup=3)
    eager = times['eager']
    for name, time in times.items():
        record.keep(f'step {name}', {**time.figures(), 'peak_mib': memory[name]})
        if name != 'eager':
            ratio = paired_ratio(eager.wall, time.wall)
            record.row(f'a small step {name}', 1e3 * time.median, 'ms', peer=1e3 * eager.median, ratio=ratio)


@torch.inference_mode()
def decode(network: LlamaNetwork, label: Tensor, tokens: int, graph: bool) -> Tensor:
    """Greedy ids (B, tokens); includes all work for a sequence: KV cache, graph capture, steps."""
    steps = Decoding(network, network.embed(label[:, None]), tokens + 1, graph)
    ids = label.new_empty(len(label), 0)
    chosen = []
    for _ in range(tokens):
        ids = steps.advance(ids).argmax(-1, keepdim=True)
        chosen.append(ids)
    return torch.cat(chosen, 1)


def decoding(record: Record) -> None:
    """The sampler's step replayed from a CUDA graph. Without a GPU the step to capture is called directly."""
    quick, rows = record.quick, 2
    depth, dim, heads, codes, tokens = (2, 64, 2, 64, 8) if quick else (12, 768, 12, 2**14, 128)
    network: LlamaNetwork = peers.our_model(depth, dim, heads, codes, tokens).to(record.device).network
    label = torch.arange(rows, device=record.device)
    first = min(tokens, 32)
    replayed, plain = (decode(network, label, first, graph) for graph in (True, False))
    what = 'decoding with a CUDA graph' if record.device.type == 'cuda' else 'decoding with the step that a graph records'
    must_be_equal(f'{what} and without', torch.equal(replayed, plain), f'{plain.numel()} greedy tokens in fp32')
    if record.device.type != 'cuda':
        record.note(f'the time of decoding with a CUDA graph: {NEEDS_GPU}')
        return
    network.to(torch.bfloat16)
    sides = {'graph': lambda: decode(network, label, tokens, True), 'none': lambda: decode(network, label, tokens, False)}
    memory = {name: peak_mib(record.device, work) for name, work in sides.items()}
    times = timed(record, sides)
    speeds = {name: rows * tokens / time.median for name, time in times.items()}
    record.row(
        f'decoding by a CUDA graph, batch {rows}, bf16',
        speeds['graph'],
        'tokens/s',
        peer=speeds['none'],
        ratio=paired_ratio(times['none'].wall, times['graph'].wall),
    )
    record.keep('decoding', {name: {**time.figures(), 'peak_mib': memory[name]} for name, time in times.items()})
