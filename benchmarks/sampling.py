"""Tokens per second of autoregressive generation: ours, Hugging Face's `generate` with equal weights, and without a KV cache.

    python benchmarks/sampling.py                  6 layers, 384 wide, 6 heads, 1024 codes, 256 tokens
    python benchmarks/sampling.py --quick          3 layers, 32 tokens
    python benchmarks/sampling.py --codes 16384    another vocabulary

    batch 1                 one image of a class, no guidance
    batch 8 with guidance   16 rows: each image once with its class and once without, scale 3
    batch 1, 16384 codes    (full form) a head with more than half as many weights as all layers, which both sides must read

    ours                          Autoregressive over a LlamaNetwork, as in vq.sample
    HF, dynamic / static cache    LlamaForCausalLM.generate; guidance by guidance_scale=, which runs the model twice per token
    HF, doubled batch             the same with both halves in one batch, and a logits processor that combines them
    ours, without a cache         the whole sequence through the network for every token: at batch 1 over 64 tokens, in a
                                  separate table; the difference grows with the number of tokens
    matrix products alone         the weights, packed like ours, times random vectors, without other operations
    memory alone                  (batch 1) as many bytes as the weights have, read by a sum over a long vector

Equality is checked first: all sides choose the same greedy tokens. Classes come first in the vocabulary. Theirs can choose a
class as the next token, ours cannot; so the rows of the head for classes are zero, and the best image token has a larger
logit. Then the sides are timed in turns, medians of 7, against the faster form of Hugging Face. Ratios are paired by round, of
wall time and of CPU time, which is more reliable next to other work. The time of ours includes packing the weights once per
call. With a GPU, GPT-L size in bf16 at batch 1 and 16.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from _common import Times, arguments, finish, in_turns, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import (  # noqa: E402
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
)

from vq.core.conditions import Condition  # noqa: E402
from vq.core.drawing import Wanted  # noqa: E402
from vq.generators.autoregressive import Autoregressive  # noqa: E402
from vq.generators.networks.llama import LlamaNetwork  # noqa: E402
from vq.nn.packed import product_of  # noqa: E402
from vq.sampling.guidance import constant  # noqa: E402
from vq.sampling.tokens import greedy  # noqa: E402

OURS, UNCACHED, ROOF, MEMORY = 'ours', 'ours, without a cache', 'matrix products alone', 'memory alone'
CLASSES, SCALE = 10, 3.0
LONG = 2**26  # numbers, 256 MB in fp32: larger than any CPU cache


class DoubledBatch(LogitsProcessor):
    """Gives both halves of the batch the same guided logits."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        conditional, unconditional = scores.chunk(2)
        return (unconditional + SCALE * (conditional - unconditional)).repeat(2, 1)


def our_model(depth: int, dim: int, heads: int, codes: int, tokens: int) -> Autoregressive:
    torch.manual_seed(0)
    network = LlamaNetwork(CLASSES + 1 + codes, dim, depth, heads, length=tokens + 1)
    with torch.no_grad():
        network.head.weight[CLASSES + 1 :].normal_(std=0.02)
    return Autoregressive(network, (tokens,), (codes,), CLASSES, vocabulary='joint').eval()


def their_model(network: LlamaNetwork) -> LlamaForCausalLM:
    """A model with the same weights. Theirs rotates channels i and i + D / 2 together, ours channels 2 i and 2 i + 1."""
    config = LlamaConfig(
        vocab_size=network.vocabulary,
        hidden_size=network.dim,
        intermediate_size=network.ffn_dim,
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        max_position_embeddings=network.length,
        rms_norm_eps=network.norm_eps,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with network.head.weight.device:
        model = LlamaForCausalLM(config).to(network.head.weight).eval()

    def unpaired(weight: Tensor) -> Tensor:
        return weight.view(network.heads, -1, 2, network.dim).transpose(1, 2).reshape(network.dim, network.dim)

    state = {'model.embed_tokens.weight': network.embedding.weight, 'lm_head.weight': network.head.weight}
    state['model.norm.weight'] = network.norm.weight
    for index, block in enumerate(network.blocks):
        q, k, v = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        own = {'self_attn.q_proj': unpaired(q), 'self_attn.k_proj': unpaired(k), 'self_attn.v_proj': v}
        own |= {'self_attn.o_proj': block.out.weight, 'mlp.gate_proj': gate, 'mlp.up_proj': up}
        own |= {'mlp.down_proj': block.down.weight, 'input_layernorm': block.attention_norm.weight}
        own['post_attention_layernorm'] = block.ffn_norm.weight
        state |= {f'model.layers.{index}.{name}.weight': weight for name, weight in own.items()}
    model.load_state_dict(state)
    return model


def their_sides(model: LlamaForCausalLM, label: Tensor, tokens: int, guided: bool) -> dict[str, Callable[[], Tensor]]:
    """Name -> greedy tokens (B, tokens), without the classes."""

    def settings(**options: Any) -> GenerationConfig:
        config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0, **options)
        config._from_model_config = False  # set by us, not derived from the model
        return config

    prompt, rows = label[:, None], len(label)
    null = torch.full_like(prompt, CLASSES)
    both = torch.cat([prompt, null])
    sides: dict[str, Callable[[], Tensor]] = {}
    for kind in ('dynamic', 'static'):
        cache = {} if kind == 'dynamic' else {'cache_implementation': 'static'}
        if not guided:
            plain = partial(model.generate, generation_config=settings(**cache))
            sides[f'HF, {kind} cache'] = lambda run=plain: (
                run(prompt, attention_mask=torch.ones_like(prompt))[:, 1:] - CLASSES - 1
            )
            continue
        joined = partial(
            model.generate, generation_config=settings(**cache), logits_processor=LogitsProcessorList([DoubledBatch()])
        )
        sides[f'HF, {kind} cache, doubled batch'] = lambda run=joined: (
            run(both, attention_mask=torch.ones_like(both))[:rows, 1:] - CLASSES - 1
        )
        if kind == 'dynamic':
            twice = partial(model.generate, generation_config=settings(guidance_scale=SCALE))
            sides['HF, guidance_scale='] = lambda run=twice: (
                run(prompt, attention_mask=torch.ones_like(prompt), negative_prompt_ids=null)[:, 1:] - CLASSES - 1
            )
    return sides


@torch.inference_mode()
def without_cache(model: Autoregressive, label: Tensor) -> Tensor:
    ids, first = label[:, None], CLASSES + 1
    for _ in range(model.positions):
        logits = model.network(model.network.embed(ids))[:, -1, first:]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True) + first], 1)
    return ids[:, 1:] - first


def weights_of(network: LlamaNetwork) -> list[Tensor]:
    """The weight matrices used for every token."""
    linear = [module.weight for module in network.modules() if isinstance(module, torch.nn.Linear)]
    return [weight.detach() for weight in linear]


def products(network: LlamaNetwork, rows: int, tokens: int) -> Callable[[], None]:
    linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    work = [(product_of(module, rows), torch.randn(rows, module.in_features).to(module.weight)) for module in linear]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(tokens):
            for product, vectors in work:
                product(vectors)

    return run


def memory(network: LlamaNetwork, tokens: int) -> Callable[[], None]:
    """Reads the bytes of all weights once per token, by sums over 256 MB."""
    sample = weights_of(network)[0]
    count = sum(weight.numel() for weight in weights_of(network)) * tokens
    vector = torch.ones(LONG, dtype=sample.dtype, device=sample.device)

    def run() -> None:
        for first in range(0, count, LONG):
            vector[: count - first].sum()

    return run


def measure(model: Autoregressive, rows: int, guided: bool) -> tuple[str, dict[str, Times]]:
    """A title, and the times of all sides; on a GPU each side synchronizes at its end."""
    network, tokens = model.network, model.positions
    label = torch.arange(rows, device=network.head.weight.device) % CLASSES
    guidance = partial(constant, scale=SCALE if guided else 1.0)
    request = Wanted(list(range(rows)), 0, Condition(label))
    sides: dict[str, Callable[[], Any]] = {OURS: lambda: model.generate(request, greedy, guidance)}
    sides |= their_sides(their_model(network), label, tokens, guided)
    expected = sides[OURS]()
    for name, work in sides.items():
        if name != OURS:
            found = work()
            must_be_equal(f'{name} and ours', torch.equal(found, expected), f'{found.numel()} greedy tokens')
    sides[ROOF] = products(network, 2 * rows if guided else rows, tokens)
    if rows == 1:
        sides[MEMORY] = memory(network, tokens)
    if label.is_cuda:
        sides = {name: lambda work=work: (work(), torch.cuda.synchronize()) for name, work in sides.items()}
    return f'batch {rows}{" with guidance" if guided else ""}', in_turns(sides, 7, warmup=0)  # the check is the warm-up


def recomputation(depth: int, codes: int, tokens: int) -> dict[str, Any]:
    """Batch 1 with and without a KV cache."""
    model = our_model(depth, 384, 6, codes, tokens)
    label = torch.zeros(1, dtype=torch.int64)
    request = Wanted([0], 0, Condition(label))
    sides = {OURS: lambda: model.generate(request, greedy, constant), UNCACHED: lambda: without_cache(model, label)}
    must_be_equal('ours with a cache and without', torch.equal(sides[OURS](), sides[UNCACHED]()), f'{tokens} greedy tokens')
    times = in_turns(sides, 7, warmup=0)
    ratio = paired_ratio(times[UNCACHED].wall, times[OURS].wall)
    rows = [(name, tokens / time.median, 1e3 * time.median, 1e3 * time.cpu_median) for name, time in times.items()]
    table(f'batch 1, {codes} codes, {tokens} tokens', ('', 'tokens/s', 'ms', 'cpu ms'), rows)
    print(f'without a cache it takes {ratio:.3g} times as long')
    return {'tokens': tokens, 'times_ours': rounded(ratio), 'sides': {name: time.figures() for name, time in times.items()}}


def report(title: str, times: dict[str, Times], total: int, goal: float) -> dict[str, Any]:
    ratios = {name: paired_ratio(time.wall, times[OURS].wall) for name, time in times.items()}
    cpu_ratios = {name: paired_ratio(time.cpu, times[OURS].cpu) for name, time in times.items()}
    rows = [
        (name, total / time.median, 1e3 * time.median, ratios[name], 1e3 * time.cpu_median, cpu_ratios[name])
        for name, time in times.items()
    ]
    table(title, ('', 'tokens/s', 'ms', 'x ours', 'cpu ms', 'x ours, cpu'), rows)
    best = min(ratio for name, ratio in ratios.items() if name.startswith('HF'))
    cpu_best = min(ratio for name, ratio in cpu_ratios.items() if name.startswith('HF'))
    by_memory = f', {100 * ratios[MEMORY]:.3g} % of what memory gives' if MEMORY in ratios else ''
    print(f'the faster form of HF takes {best:.3g} times ours ({cpu_best:.3g} by processor time), goal {goal}')
    print(f'ours reaches {100 * ratios[ROOF]:.3g} % of its products{by_memory}')
    found: dict[str, Any] = {
        name: {**time.figures(), 'tokens_per_second': rounded(total / time.median), 'times_ours': rounded(ratios[name])}
        for name, time in times.items()
    }
    return {
        'sides': found,
        'faster_than_hf': rounded(best),
        'faster_than_hf_cpu': rounded(cpu_best),
        'goal': goal,
        'goal_met': best >= goal,
        'roof_share': rounded(ratios[ROOF]),
    }


def on_gpu(quick: bool) -> dict[str, Any]:
    """GPT-L size in bf16. Aims at batch 1: 4 times as fast as Hugging Face, and 60 % of the memory bandwidth."""
    tokens = 64 if quick else 256
    model = our_model(24, 1024, 16, 2**14, tokens).to('cuda', torch.bfloat16)
    figures = {}
    for rows in (1, 16):
        title, times = measure(model, rows, guided=False)
        figures[title] = report(f'GPU, GPT-L in bf16: {title}', times, rows * tokens, 4.0)
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--codes', type=int, metavar='N', help='size of the codebook (1024; full form: 16384 too)')
    options = parser.parse_args()
    where = machine()
    begun = time.perf_counter()
    tokens, depth = (32, 3) if options.quick else (256, 6)
    codes = options.codes or 1024
    cases = [(codes, 1, False, 1.7), (codes, 8, True, 1.3)]
    if options.codes is None and not options.quick:
        cases.append((16384, 1, False, 1.7))
    figures: dict[str, Any] = {}
    for size, rows, guided, goal in cases:
        model = our_model(depth, 384, 6, size, tokens)
        title, times = measure(model, rows, guided)
        title = f'{title}, {size} codes'
        figures[title] = report(f'{title}, {tokens} tokens', times, rows * tokens, goal)
    uncached = recomputation(depth, codes, min(tokens, 64))
    gpu: dict[str, Any] | str = 'not run'
    if torch.cuda.is_available():
        gpu = on_gpu(options.quick)
    else:
        print('\nGPU: not run')
    print(f'{time.perf_counter() - begun:.0f} s in all')
    threads = torch.get_num_threads()
    finish(
        'sampling',
        options.quick,
        where,
        {'threads': threads, 'tokens': tokens, 'rows': figures, 'uncached': uncached, 'gpu': gpu},
    )


if __name__ == '__main__':
    main()
