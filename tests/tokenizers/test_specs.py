"""Codecs of any rank (a rectangular VQGAN, a line, a video) keep the promises, fill token shards and feed a generator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size, TokenSpec
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.generators.autoregressive import Autoregressive
from vq.generators.networks.llama import LlamaNetwork
from vq.interfaces import Quantizer, Tokenizer
from vq.io.shards import ShardSet, ShardWriter
from vq.quantizers.finite_scalar import FiniteScalarQuantizer
from vq.quantizers.grouped import GroupedQuantizer
from vq.quantizers.residual import ResidualQuantizer
from vq.quantizers.vector import VectorQuantizer
from vq.registries import VQModelRegistry

CODES = 11


class Line(Tokenizer):
    """A tokenizer of a line of 6 tokens, whatever the size of the image: pixels are averaged into 6 stripes."""

    can_tokenize, can_decode = True, True

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer, self.codebooks = quantizer, quantizer.codebooks
        self.widen = nn.Linear(3, quantizer.embedding_dim)
        self.narrow = nn.Linear(quantizer.embedding_dim, 3)

    def spec(self, size: Size) -> CodecSpec:
        self.size = size
        return CodecSpec(self.quantizer.token_spec((6,)), LatentSpec(self.quantizer.embedding_dim, (6,), self.statistics.kind))

    def encode(self, image: Tensor) -> Latent:
        self.size = tuple(image.shape[2:])
        stripes = nn.functional.adaptive_avg_pool2d(image, (1, 6))[:, :, 0]  # (B, 3, 6)
        return Latent(self.widen(stripes.transpose(1, 2)).transpose(1, 2))

    def quantize(self, latent: Latent) -> Quantized:
        found: Quantized = self.quantizer(latent.mean.transpose(1, 2))
        return Quantized(found.z.transpose(1, 2), found.tokens, found.losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.quantizer.lookup(tokens).transpose(1, 2)

    def decode(self, z: Tensor) -> Tensor:
        stripes = self.narrow(z.transpose(1, 2)).transpose(1, 2)  # (B, 3, 6)
        return nn.functional.interpolate(stripes[:, :, None], self.size)


class Video(Tokenizer):
    """A tokenizer of videos (B, 3, F, H, W): blocks of 2 frames of 4 x 4 pixels are tokens."""

    can_tokenize, can_decode = True, True

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer, self.codebooks = quantizer, quantizer.codebooks
        self.down = nn.Conv3d(3, quantizer.embedding_dim, (2, 4, 4), (2, 4, 4))
        self.up = nn.ConvTranspose3d(quantizer.embedding_dim, 3, (2, 4, 4), (2, 4, 4))

    def spec(self, size: Size) -> CodecSpec:
        cells = (size[0] // 2, size[1] // 4, size[2] // 4)
        latent = LatentSpec(self.quantizer.embedding_dim, cells, self.statistics.kind)
        return CodecSpec(self.quantizer.token_spec(cells), latent)

    def encode(self, image: Tensor) -> Latent:
        return Latent(self.down(image))

    def quantize(self, latent: Latent) -> Quantized:
        found: Quantized = self.quantizer(latent.mean.movedim(1, -1))
        return Quantized(found.z.movedim(-1, 1), found.tokens, found.losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.quantizer.lookup(tokens).movedim(-1, 1)

    def decode(self, z: Tensor) -> Tensor:
        found: Tensor = self.up(z)
        return found


def vqgan(quantizer: Quantizer) -> Tokenizer:
    shape = dict(width=8, multipliers=(1, 2), attention_levels=(), norm_groups=2)
    encoder = dict(type='ConvEncoder', out_channels=quantizer.embedding_dim, **shape)
    built: Tokenizer = VQModelRegistry.build(
        dict(type='VQGAN', encoder=encoder, quantizer=quantizer, decoder=dict(type='ConvDecoder', **shape)), 'model'
    )
    return built


QUANTIZERS = {
    'one': lambda: VectorQuantizer(CODES, 4),
    'residual': lambda: ResidualQuantizer(VectorQuantizer(CODES, 4), stages=3),
    'shared': lambda: ResidualQuantizer(VectorQuantizer(CODES, 4), stages=3, shared=True),
    'grouped': lambda: GroupedQuantizer([VectorQuantizer(5, 2), VectorQuantizer(7, 2)]),
    'single': lambda: ResidualQuantizer(VectorQuantizer(CODES, 4), stages=1),
    'fsq': lambda: FiniteScalarQuantizer([3, 3, 5, 4]),
}
KINDS: dict[str, tuple[Any, Size]] = {
    'rectangle': (vqgan, (6, 20)),
    'line': (Line, (9, 31)),
    'video': (Video, (4, 8, 12)),
}
CASES = [(kind, name) for kind in KINDS for name in QUANTIZERS]


def make(kind: str, name: str) -> tuple[Tokenizer, Size]:
    torch.manual_seed(7)
    family, size = KINDS[kind]
    return family(QUANTIZERS[name]()).eval(), size


def images(size: Size, count: int = 5) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(('kind', 'name'), CASES)
def test_what_a_codec_says_is_what_it_makes(kind: str, name: str) -> None:
    tokenizer, size = make(kind, name)
    spec, image = tokenizer.spec(size), images(size)
    assert spec.tokens is not None and spec.latent is not None
    tokens = tokenizer.tokenize(image)
    quantized = tokenizer.quantize(tokenizer.encode(image))
    assert tokens.shape[1:] == spec.tokens.shape and tokens.dtype == torch.int64
    assert quantized.z.shape[1:] == spec.latent.shape and spec.latent.normalized is None
    assert torch.equal(tokenizer.lookup(tokens), quantized.z)
    assert tokenizer.detokenize(tokens).shape == image.shape
    books = torch.tensor(spec.tokens.codebooks)
    assert (tokens >= 0).all() and (tokens.reshape(5, -1, len(books)) < books).all()
    assert tokenizer.codebook_size == spec.tokens.codebook_size == max(books.tolist())
    # every token is one of so many: bits are their logarithms
    each = [math.log2(books[index % len(books)]) for index in range(tokens[0].numel())]
    assert spec.tokens.bits == pytest.approx(math.fsum(each)) and spec.tokens.count == len(each)


@pytest.mark.parametrize(('kind', 'name'), [(kind, name) for kind in KINDS for name in ('one', 'grouped', 'shared')])
def test_tokens_go_through_shards_into_a_generator(kind: str, name: str, tmp_path: Any) -> None:
    tokenizer, size = make(kind, name)
    frozen = FrozenTokenizer(tokenizer, image_size=size)
    spec = frozen.tokens
    tokens = tokenizer.tokenize(images(size))
    producer = {'codebook_size': spec.codebook_size, 'token_shape': list(spec.shape)}
    writer = ShardWriter(tmp_path / 'tokens', kind='tokens', total=5, shard_size=2, producer=producer)
    for part in writer.pending():
        rows = tokens[part.start : part.stop, None].numpy()
        writer.write(part, {'tokens': rows}, [str(row) for row in range(part.start, part.stop)])
    writer.finish()
    read = torch.stack([torch.tensor(row['tokens'][0].astype('int64')) for row in ShardSet(tmp_path / 'tokens')])
    assert torch.equal(read, tokens)
    network = LlamaNetwork(sum(spec.codebooks), 16, 1, 2, length=spec.count)
    model = Autoregressive(network, spec.cells, spec.codebooks).eval()
    assert model.tokens == spec
    assert model(read, None).targets.shape == (5, spec.count)
    drawn = model.generate(Wanted([0, 1, 2], 5), lambda logits, numbers: logits.argmax(-1), lambda *_: 1.0)
    assert drawn.shape == (3, *spec.shape)
    assert tokenizer.detokenize(drawn).shape[1:] == images(size).shape[1:]


@pytest.mark.parametrize('old', [dict(token_shape=(2, 3), codebook_size=7), dict(cells=(2, 3), codebooks=7)])
def test_settings_of_older_runs_are_read(old: dict[str, Any]) -> None:
    from vq.registries import VQGeneratorRegistry

    network = dict(type='LlamaNetwork', dim=16, depth=1, heads=2)
    built = VQGeneratorRegistry.build(dict(type='Autoregressive', network=network, **old))
    assert built.tokens == TokenSpec((2, 3), (7,))
    several = dict(token_shape=(2, 3, 2), codebook_size=7, codebook_sizes=(7, 5))
    built = VQGeneratorRegistry.build(dict(type='Autoregressive', network=network, **several))
    assert built.tokens == TokenSpec((2, 3), (7, 5)) and built.network.vocabulary == 12


def test_continuous_codecs_refuse_tokens_and_images_that_do_not_divide_are_refused() -> None:
    tokenizer, _ = make('rectangle', 'one')
    with pytest.raises(UserError, match='6 x 21 pixels do not divide into cells of 2'):
        tokenizer.spec((6, 21))
    with pytest.raises(UserError, match='images of 4 x 6 x 8'):
        tokenizer.spec((4, 6, 8))
