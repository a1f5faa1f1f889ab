"""VQ-KD reproduces the figures of BEiT v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vq
from tests.published import Golden, read_golden
from vq.cli.convert import convert_file
from vq.core.errors import UserError
from vq.losses.features import CosineLoss
from vq.tokenizers.vqkd import VQKD


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def converted(peer: Golden, folder: Path, **options: Any) -> Path:
    file = folder / 'vqkd.pth'
    torch.save({'model': peer.state, 'epoch': 99}, file)
    output = folder / 'vqkd.converted'
    convert_file('beitv2', file, {'heads': peer.meta['heads'], **options}, output)
    return output


@pytest.fixture(scope='module')
def peer() -> Golden:
    return read_golden('beit2_vqkd')


def test_tokens_features_and_loss(peer: Golden, tmp_path: Path) -> None:
    """Features (B, h * w, C) of the peer are maps (B, C, h, w) of ours. Images of ours are in [-1, 1]."""
    loaded = vq.load(converted(peer, tmp_path))
    model, image = loaded.model, 2 * peer['in/image_unit_range'] - 1
    assert isinstance(model, VQKD)
    assert_close(image, peer['out/preprocessed'])
    assert torch.equal(loaded.tokenize(image).flatten(1), peer['out/tokens'])
    with torch.no_grad():
        assert_close(model.encoder.body(image).flatten(1, 2), peer['out/encoder_features'])
        quantized = model.quantize(model.encode(image))
        assert_close(quantized.z, peer['out/quantized'])
        assert_close(quantized.losses['commitment'], peer['out/quant_loss'])  # their beta is 1
        prediction = model.predict(quantized.z)
        assert_close(prediction.flatten(2).transpose(1, 2), peer['out/decoded'])
        target = peer['in/target'].transpose(1, 2).unflatten(2, (4, 4))
        assert_close(CosineLoss()(prediction, target), peer['out/cosine_loss'])


def test_without_the_decoder(peer: Golden, tmp_path: Path) -> None:
    """The same tokens, at other sizes, too. Pixels are refused by what makes them."""
    whole, loaded = (vq.load(converted(peer, tmp_path, with_decoder=with_decoder)) for with_decoder in (True, False))
    assert whole.model.feature_decoder is not None and loaded.model.feature_decoder is None
    image = F.interpolate(peer['out/preprocessed'], (20, 12))
    tokens = loaded.model.tokenize(image)
    assert tokens.shape == (2, 5, 3) and torch.equal(tokens, whole.model.tokenize(image))
    tokens = loaded.tokenize(peer['out/preprocessed'])
    assert (loaded.image_size, loaded.token_shape, loaded.codebook_size) == (16, (4, 4), 32)
    with pytest.raises(UserError, match='VQKD makes no pixels') as caught:
        loaded.detokenize(tokens)
    assert f'configs/decoder/vqgan.py tokenizer={tmp_path}/vqkd.converted,' in caught.value.hint
