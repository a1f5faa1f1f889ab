"""CLIP's text encoders (Radford et al. 2021; OpenCLIP, Cherti et al. 2023), by transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vq.conditioners.texts.base import FrozenText, check_sizes
from vq.conditioners.texts.tokens import Tokenized
from vq.core.errors import ConfigError
from vq.registries import VQTextEncoderRegistry

FILES = ('vocab.json', 'merges.txt')
# of open_clip and of OpenAI's files -> those of transformers
BLOCK = {
    'ln_1': 'layer_norm1',
    'ln_2': 'layer_norm2',
    'attn.out_proj': 'self_attn.out_proj',
    'mlp.c_fc': 'mlp.fc1',
    'mlp.c_proj': 'mlp.fc2',
}
ENDS = {
    'token_embedding.weight': 'embeddings.token_embedding.weight',
    'positional_embedding': 'embeddings.position_embedding.weight',
    'ln_final.weight': 'final_layer_norm.weight',
    'ln_final.bias': 'final_layer_norm.bias',
}
# where the network stands in files: of transformers, of CompVis' Stable Diffusion 1 and 2
PREFIXES = ('cond_stage_model.transformer.text_model.', 'cond_stage_model.model.', 'text_model.')


def _open(vocabulary: str, merges: str) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocabulary, merges)


@VQTextEncoderRegistry.register_()
class CLIPText(FrozenText):
    """A text -> the tokens after the last of ``depth`` layers and the final norm, as Stable Diffusion 1 takes them.

    The defaults are the text half of ViT-L/14: 77 tokens of 768 channels. Texts are filled up with the token of the end.
    ``file``: in the layout of transformers (also ``model.safetensors`` of a folder ``text_encoder``), of OpenAI, of open_clip,
    or a whole checkpoint of Stable Diffusion; layers behind ``depth`` are left out. ``tokenizer``: the folder of vocab.json
    and merges.txt, or 'bytes', which is for random weights. Both below the folder of pretrained files.
    """

    ACTIVATION: ClassVar[Literal['gelu', 'quick_gelu']] = 'quick_gelu'
    PADDING: ClassVar[int | None] = None  # the token of the end

    def __init__(
        self,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        length: int = 77,
        vocabulary: int = 49408,
        file: str = 'sd15/text_encoder/model.safetensors',
        tokenizer: str = 'sd15/tokenizer',
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, dim, depth, heads, length)
        self.dim, self.depth = dim, depth
        network = self._make(heads, length, vocabulary)
        self.settle(network, Tokenized(tokenizer, FILES, _open, length, vocabulary, self.PADDING), file)

    def _make(self, heads: int, length: int, vocabulary: int) -> nn.Module:
        try:
            from transformers import CLIPTextConfig, CLIPTextModel
        except ImportError as error:
            raise ConfigError(
                f'{type(self).__name__} needs the package transformers, which is not installed', "pip install 'vq[features]'"
            ) from error
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=self.dim,
                intermediate_size=4 * self.dim,
                num_hidden_layers=self.depth,
                num_attention_heads=heads,
                max_position_embeddings=length,
                hidden_act=self.ACTIVATION,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
            )
        )

    def run(self, ids: Tensor) -> Tensor:
        found: Tensor = self.network(input_ids=ids).last_hidden_state
        return found

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefix = next((one for one in PREFIXES if any(key.startswith(one) for key in published)), '')
        inner = {key.removeprefix(prefix): value for key, value in published.items() if key.startswith(prefix)}
        found: dict[str, Tensor] = {}
        for key, value in inner.items():
            if key.endswith('position_ids'):
                continue
            block = re.fullmatch(r'transformer\.resblocks\.(\d+)\.(.+)', key)
            layer = re.match(r'encoder\.layers\.(\d+)\.', key)
            if layer is not None:
                found |= {key: value} if int(layer[1]) < self.depth else {}
            elif block is not None:
                found |= _of_block(int(block[1]), block[2], value) if int(block[1]) < self.depth else {}
            elif key in ENDS or key.startswith(('embeddings.', 'final_layer_norm.')):
                found[ENDS.get(key, key)] = value
        return found


@VQTextEncoderRegistry.register_()
class OpenCLIPText(CLIPText):
    """The same of OpenCLIP, as Stable Diffusion 2 takes it: the output of the last layer but one, after the final norm.

    The defaults are the text half of ViT-H/14 without its last layer: 23 of 24 layers, 77 tokens of 1,024 channels. Texts are
    filled up with token 0.
    """

    ACTIVATION = 'gelu'
    PADDING = 0

    def __init__(
        self,
        dim: int = 1024,
        depth: int = 23,
        heads: int = 16,
        length: int = 77,
        vocabulary: int = 49408,
        file: str = 'sd21/text_encoder/model.safetensors',
        tokenizer: str = 'sd21/tokenizer',
    ) -> None:
        super().__init__(dim, depth, heads, length, vocabulary, file, tokenizer)


def _of_block(number: int, rest: str, value: Tensor) -> dict[str, Tensor]:
    """Tensors of a block of open_clip. It stores query, key and value in one matrix."""
    where = f'encoder.layers.{number}'
    if rest.startswith('attn.in_proj_'):
        leaf = rest.removeprefix('attn.in_proj_')
        return {f'{where}.self_attn.{name}_proj.{leaf}': part for name, part in zip('qkv', torch.chunk(value, 3), strict=True)}
    name, _, leaf = rest.rpartition('.')
    return {f'{where}.{BLOCK.get(name, name)}.{leaf}': value}
