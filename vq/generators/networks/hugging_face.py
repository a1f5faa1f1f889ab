"""Llama and GPT-2 of the package transformers, as causal networks of a generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError, listing
from vq.interfaces import CausalNetwork, Pretrained
from vq.io.pretrained import pretrained_root
from vq.io.values import check_values
from vq.io.weights import read_weights
from vq.registries import VQCausalNetworkRegistry

WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
EMBEDDINGS = ('embed_tokens.weight', 'wte.weight', 'lm_head.weight')  # tables with one row per id: they are resized
BUFFERS = ('.attn.bias', '.attn.masked_bias', '.rotary_emb.inv_freq')  # in files that older versions wrote


class HuggingFaceNetwork(CausalNetwork, Pretrained):
    """A causal language model of transformers. It is trained, so checkpoints contain it; only a fresh run reads its folder.

    ``settings`` are the arguments of its config class, except ``vocabulary`` and ``length``. ``weights`` is a folder written
    by ``save_pretrained``, whose config.json has the same settings. If the vocabularies differ in size, surplus rows of the
    embedding and the head are left out, and missing rows stay random.
    """

    frozen = False

    def __init__(self, model: Any, vocabulary: int, dim: int, length: int, weights: str | None, zero_head: bool) -> None:
        from transformers import DynamicCache

        super().__init__()
        self.model, self.cache_type = model, DynamicCache
        self.vocabulary, self.dim, self.length, self.weights = vocabulary, dim, length, weights
        if zero_head and not model.config.tie_word_embeddings:
            nn.init.zeros_(model.lm_head.weight)

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def forward(self, embedded: Tensor) -> Tensor:
        # without a cache, transformers tests positions for packed sequences, which is a host sync; the cache holds only
        # tensors that backward keeps anyway
        cache = self.make_cache(len(embedded), embedded.shape[1])
        logits: Tensor = self.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True).logits
        return logits

    def make_cache(self, rows: int, length: int) -> Any:
        return self.cache_type(config=self.model.config)

    @torch.no_grad()
    def step(self, embedded: Tensor, start: int, cache: Any) -> Tensor:
        if cache.get_seq_length() != start:
            raise ConfigError(
                f'position {start} after {cache.get_seq_length()} cached positions', 'Give the positions one after the other.'
            )
        made = self.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = made.logits[:, -1].float()
        return logits

    def pretrained_files(self) -> list[Path]:
        return [] if self.weights is None else [self._file()]

    def _file(self) -> Path:
        assert self.weights is not None
        folders = [Path(self.weights).expanduser(), pretrained_root() / self.weights]
        files = [folder / name for folder in folders for name in WEIGHTS]
        return next((file for file in files if file.is_file()), folders[-1] / WEIGHTS[0])

    def load_pretrained(self) -> None:
        if self.weights is None:
            return
        file = self._file()
        if not file.is_file():
            raise UserError(
                f'{self.weights} has no {" or ".join(WEIGHTS)}',
                'Give a folder that save_pretrained wrote, in one file, or a path below the folder of pretrained files.',
            )
        self.fill(read_weights(file)[0], str(file))

    @torch.no_grad()
    def fill(self, published: Mapping[str, Tensor], source: str) -> None:
        """Copy the tensors of a file with the keys of transformers, with or without the prefix of the model with a head."""
        own: dict[str, Tensor] = self.model.state_dict()
        prefix = self.model.base_model_prefix + '.'
        given = {
            key if key in own or key.startswith(prefix) else prefix + key: value
            for key, value in published.items()
            if not key.endswith(BUFFERS)
        }
        odd = [key for key in given if key not in own]
        odd += [key for key in own if key not in given and key != 'lm_head.weight']
        for key, value in given.items():
            if key in own and (
                value.shape != own[key].shape and not (_has_ids(key) and value.shape[1:] == own[key].shape[1:])
            ):
                odd.append(f'{key} {tuple(value.shape)} for {tuple(own[key].shape)}')
        if odd:
            raise UserError(
                f'{source} does not fit {type(self.model).__name__} of these settings\n'
                f'  missing, unexpected, or of another shape: {listing(odd, most=4)}',
                'Give the settings that its config.json has.',
            )
        check_values(given, own, source)
        for key, value in given.items():
            rows = min(len(own[key]), len(value)) if value.ndim else 0
            target = own[key] if value.shape == own[key].shape else own[key][:rows]
            target.copy_(value if value.shape == own[key].shape else value[:rows])


def _has_ids(key: str) -> bool:
    return key.endswith(EMBEDDINGS)


def _build(name: str, config: str, settings: Mapping[str, Any], of_ours: Mapping[str, Any]) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            'Hugging Face networks need the package transformers, which is not installed',
            "pip install 'vq[features]'",
        ) from error
    double = sorted(set(settings) & set(of_ours))
    known = getattr(transformers, config)()
    unknown = sorted(key for key in settings if not hasattr(known, key))
    if double or unknown:
        raise ConfigError(
            f'settings of {name}: {listing(double or unknown)} {"are set by vq" if double else "are unknown to its config"}',
            f'They are the arguments of transformers.{config}, without {listing(of_ours)}.',
        )
    made = getattr(transformers, config)(**settings, **of_ours, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    made._attn_implementation = 'sdpa'
    return getattr(transformers, name)(made)


@VQCausalNetworkRegistry.register_()
class HuggingFaceLlama(HuggingFaceNetwork):
    """``transformers.LlamaForCausalLM``; rotary positions are those of a line. An untied head starts at zero.

    ``settings`` are those of LlamaConfig: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and others.
    ``weights`` is a folder that ``save_pretrained`` wrote, or None: random.
    """

    def __init__(self, vocabulary: int, length: int, settings: dict[str, Any], weights: str | None = None) -> None:
        given = {'vocab_size': vocabulary, 'max_position_embeddings': length}
        model = _build('LlamaForCausalLM', 'LlamaConfig', settings, given)
        super().__init__(model, vocabulary, model.config.hidden_size, length, weights, zero_head=True)


@VQCausalNetworkRegistry.register_()
class HuggingFaceGPT2(HuggingFaceNetwork):
    """``transformers.GPT2LMHeadModel``. ``settings`` are those of GPT2Config: n_embd, n_layer, n_head and others.

    ``length`` is that of the position table; published folders need 1024. ``weights``: a folder, or None: random.
    """

    def __init__(self, vocabulary: int, length: int, settings: dict[str, Any], weights: str | None = None) -> None:
        given = {'vocab_size': vocabulary, 'n_positions': length}
        model = _build('GPT2LMHeadModel', 'GPT2Config', settings, given)
        super().__init__(model, vocabulary, model.config.n_embd, length, weights, zero_head=True)
