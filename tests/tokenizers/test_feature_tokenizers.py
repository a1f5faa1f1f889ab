"""VQ-KD and Cluster: tokens, code vectors, specs, parts that are frozen or absent, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tokenizers.patch_teacher import PatchTeacher
from vq.core.errors import ConfigError, UserError
from vq.encoders.teacher import TeacherEncoder
from vq.encoders.vit import ViTEncoder
from vq.interfaces import Tokenizer
from vq.registries import VQModelRegistry
from vq.tokenizers.cluster import Cluster
from vq.tokenizers.vqkd import VQKD

VIT: dict[str, Any] = dict(dim=16, depth=1, heads=2)
ENCODER = dict(type='ViTEncoder', out_channels=6, patch=4, image_size=16, **VIT)
CODES = dict(type='VectorQuantizer', codebook_size=20, embedding_dim=6, normalize=True, update=dict(type='VQKDUpdate'))
FEATURES = dict(type='ViTFeatureDecoder', out_channels=5, grid=4, **VIT)
TEACHER = dict(type='TeacherEncoder', teacher=dict(type='PatchTeacher'), downsampling=4)
CLUSTERS = dict(type='VectorQuantizer', codebook_size=20, embedding_dim=6, distance='cosine', update=dict(type='CVQUpdate'))


def build(kind: str, **parts: Any) -> Any:
    torch.manual_seed(0)
    usual = dict(encoder=ENCODER, quantizer=CODES, feature_decoder=FEATURES) if kind == 'VQKD' else {}
    usual = usual or dict(encoder=TEACHER, quantizer=CLUSTERS)
    return VQModelRegistry.build({'type': kind, **usual, **parts}, 'tokenizer')


def images(height: int = 16, width: int = 16, count: int = 3) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize(('height', 'width'), [(16, 16), (20, 28)])
@pytest.mark.parametrize('kind', ['VQKD', 'Cluster'])
def test_tokens_name_the_code_vectors(kind: str, height: int, width: int, bf16: bool) -> None:
    tokenizer: Tokenizer = build(kind).eval()
    image = images(height, width)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        tokens, quantized = tokenizer.tokenize(image), tokenizer.quantize(tokenizer.encode(image))
    spec = tokenizer.spec((height, width))
    assert spec.tokens is not None and spec.latent is not None
    assert tokens.shape == (3, *spec.tokens.shape) == (3, height // 4, width // 4) and tokens.dtype == torch.int64
    assert tokens.unique().numel() > 2 and (tokenizer.codebooks, tokenizer.codebook_size) == ((20,), 20)
    assert torch.equal(tokenizer.lookup(tokens), quantized.z) and torch.equal(tokens, quantized.tokens)
    assert quantized.z.shape == (3, spec.latent.channels, *spec.latent.cells) and quantized.z.dtype == torch.float32


def test_cluster_is_the_nearest_direction_of_the_teacher_and_keeps_the_length_of_a_code() -> None:
    tokenizer, image = build('Cluster').eval(), images()
    tokenizer.quantizer.codebook.weight.data.normal_()
    features = PatchTeacher().features(image).patches  # (B, 6, 4, 4)
    codes: Tensor = tokenizer.quantizer.codebook.weight
    cosine = torch.einsum('bchw,kc->bhwk', F.normalize(features, dim=1), F.normalize(codes, dim=1))
    assert torch.equal(tokenizer.tokenize(image), cosine.argmax(-1))
    assert torch.equal(tokenizer.lookup(tokenizer.tokenize(image))[0, :, 1, 2], codes[cosine.argmax(-1)[0, 1, 2]])


def test_vqkd_predicts_a_map_of_the_width_of_the_teacher() -> None:
    tokenizer = build('VQKD')
    z = tokenizer.quantize(tokenizer.encode(images(20, 28))).z
    assert tokenizer.predict(z).shape == (3, 5, 5, 7)
    without = build('VQKD', feature_decoder=None)
    assert torch.equal(without.tokenize(images()), tokenizer.tokenize(images()))
    with pytest.raises(UserError, match='no feature_decoder'):
        without.predict(z)


def test_connectors_join_other_widths() -> None:
    wide = dict(ENCODER, out_channels=10)
    with pytest.raises(ConfigError, match='encoder gives 10 channels and quantizer takes 6'):
        build('VQKD', encoder=wide)
    tokenizer = build(
        'VQKD',
        encoder=wide,
        post_encode=dict(type='ConvConnector'),
        pre_decode=dict(type='ConvConnector'),
        feature_decoder=dict(FEATURES, in_channels=9),
    )
    z = tokenizer.quantize(tokenizer.encode(images())).z
    assert tokenizer.predict(z).shape == (3, 5, 4, 4)
    assert (tokenizer.post_encode.out_channels, tokenizer.pre_decode.in_channels, tokenizer.pre_decode.out_channels) == (
        6,
        6,
        9,
    )


@pytest.mark.parametrize('kind', ['VQKD', 'Cluster'])
def test_pixels_are_refused_with_the_decoder_to_train(kind: str) -> None:
    tokenizer = build(kind)
    assert not tokenizer.can_decode
    for ask in (lambda: tokenizer.decode(torch.zeros(1, 6, 4, 4)), lambda: tokenizer.detokenize(torch.zeros(1, 4, 4).long())):
        with pytest.raises(UserError, match=f'{kind} makes no pixels') as caught:
            ask()
        assert 'configs/decoder/vqgan.py' in caught.value.hint
    with pytest.raises(UserError, match='cells of 4'):
        tokenizer.encode(images(18, 16))


def test_only_codes_of_a_cluster_are_trained() -> None:
    tokenizer = build('Cluster')
    assert [name for name, value in tokenizer.named_parameters() if value.requires_grad] == ['quantizer.codebook.weight']
    with pytest.raises(ConfigError, match='the encoder of a Cluster is frozen, and ViTEncoder is trained'):
        build('Cluster', encoder=ENCODER, quantizer=CODES)
    assert isinstance(tokenizer, Cluster) and isinstance(tokenizer.encoder, TeacherEncoder)
    assert isinstance(build('VQKD'), VQKD) and isinstance(build('VQKD').encoder, ViTEncoder)
