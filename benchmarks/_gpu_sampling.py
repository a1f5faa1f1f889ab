"""Autoregressive sampling against Hugging Face's eager generation with the same weights, and against the memory bandwidth.

Sides are those of sampling.py: GPT-L's size in bf16, greedy tokens. A token step must read all weights, and the keys and
values of all previous positions. The roof is the time to read these bytes at the rate of a copy. Equality is checked first: in
fp32 both choose the same tokens. In bf16 two logits can be equal after rounding, so the check is how far the logit of each of
our tokens is below the best logit of their model.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import sampling as peers
import torch
from _common import must_be_equal, paired_ratio, rounded
from _gpu_clock import copy_rate, peak_mib, release, timed
from _gpu_running import Aim, Record
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.generators.autoregressive import Autoregressive
from vq.generators.networks.llama import LlamaNetwork

HF = 'HF, dynamic cache'  # a static cache is compiled by generate, and no longer eager
FASTER, OF_BANDWIDTH = Aim('ratio', 4.0), Aim('roof', 0.6)
CHECKED_TOKENS = 32
REGRET = 0.2  # standard deviations of the logits: bf16 changes them by 0.04 in 12 layers, and a wrong token is 4 below


def ours(network: LlamaNetwork, tokens: int, codes: int, rows: int) -> partial[Tensor]:
    """Samples (rows, tokens) greedily by ``generate``."""
    model = Autoregressive(network, (tokens,), (codes,), peers.CLASSES, vocabulary='joint').eval()
    request = Wanted(list(range(rows)), 0, Condition(labels(network, rows)))
    return partial(model.generate, request, peers.greedy, peers.constant)


def labels(network: LlamaNetwork, rows: int) -> Tensor:
    return torch.arange(rows, device=network.head.weight.device) % peers.CLASSES


def theirs(model: Any, network: LlamaNetwork, tokens: int, rows: int) -> Any:
    return peers.their_sides(model, labels(network, rows), tokens, guided=False)[HF]


def sampling(record: Record) -> None:
    quick = record.quick
    depth, dim, heads, codes = (2, 64, 2, 64) if quick else (24, 1024, 16, 2**14)
    tokens, compared = (16, 8) if quick else (256, 128)
    bandwidth = copy_rate(record)
    record.keep('copy_gb_per_s', rounded(bandwidth / 1e9))
    network: LlamaNetwork = peers.our_model(depth, dim, heads, codes, tokens).to(record.device).network
    model = peers.their_model(network)
    first = min(tokens, CHECKED_TOKENS)
    one, other = ours(network, first, codes, 2)(), theirs(model, network, first, 2)()
    must_be_equal('ours and HF in fp32', torch.equal(one, other), f'{one.numel()} greedy tokens')
    for part in (network, model):
        to_bf16(part)

    for rows in (1, 2) if quick else (1, 16):
        short = ours(network, compared, codes, rows)
        worst = regret(model, labels(network, rows), short())
        must_be_equal(f'ours and HF in bf16, batch {rows}', worst < REGRET, f'at most {worst:.2g} deviations below the best')
        times = timed(record, {'ours': short, 'HF': theirs(model, network, compared, rows)}, warmup=1)
        record.row(
            f'batch {rows}, {compared} tokens',
            rows * compared / times['ours'].median,
            'tokens/s',
            peer=rows * compared / times['HF'].median,
            ratio=paired_ratio(times['HF'].wall, times['ours'].wall),
            aim=FASTER,
        )
        record.keep(f'batch {rows}, against HF', {name: time.figures() for name, time in times.items()})
    del model
    release(record.device)
    for rows in (1, 2) if quick else (1, 16, 64):
        whole = ours(network, tokens, codes, rows)
        memory = peak_mib(record.device, whole)
        time = timed(record, {'ours': whole})['ours']
        share = bytes_read(network, tokens, rows) / time.median / bandwidth
        aim = OF_BANDWIDTH if rows == 1 else None
        record.row(f'batch {rows}, {tokens} tokens', rows / time.median, 'images/s', roof=share, aim=aim)
        record.keep(
            f'batch {rows}',
            {**time.figures(), 'peak_mib': memory, 'ms_per_token': rounded(1e3 * time.median / tokens)},
        )


def to_bf16(model: nn.Module) -> None:
    """Convert parameters only: positions are a buffer of angles, which bf16 would change."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


@torch.inference_mode()
def regret(model: Any, label: Tensor, tokens: Tensor) -> float:
    """The largest distance of a token's logit below the best logit of their model, in standard deviations of the logits."""
    ids = tokens + peers.CLASSES + 1
    prompt = torch.cat([label[:, None], ids[:, :-1]], 1)
    logits = model(prompt).logits.float()[..., peers.CLASSES + 1 :]
    chosen = logits.gather(-1, tokens[..., None])[..., 0]
    return float(((logits.amax(-1) - chosen) / logits.std(-1)).max())


def bytes_read(network: LlamaNetwork, tokens: int, rows: int) -> float:
    """Minimum bytes for a sequence: all weights once per token, and keys and values up to each position."""
    weights = sum(weight.numel() * weight.element_size() for weight in peers.weights_of(network))
    head_dim = network.dim // network.heads
    position = 2 * network.depth * network.kv_heads * head_dim * network.head.weight.element_size() * rows
    return float(tokens * weights + position * tokens * (tokens + 1) / 2)
