"""The decoder of representation autoencoders reproduces the figures of RAE."""

from __future__ import annotations

import torch

from tests.published import read_golden
from vq.decoders.mae import MAEDecoder
from vq.io.published.rae_decoder import NORMALISATION, decoder_of


def test_patches_and_image() -> None:
    """Their tokens (B, h * w, C) are our map (B, C, h, w). Their image is in the encoder's normalisation, ours in [-1, 1]."""
    peer = read_golden('rae_decoder')
    settings, tensors = decoder_of(peer.state, peer.meta['heads'])
    settings.pop('type')
    decoder = MAEDecoder(**settings).eval()
    decoder.load_state_dict({key.removeprefix('decoder.'): value for key, value in tensors.items()})
    z = peer['in/latent_tokens'].transpose(1, 2).unflatten(2, (4, 4))
    with torch.no_grad():
        features = decoder.features(z)
        logits, image = decoder.out(features), decoder(z)
    theirs = peer['out/patch_logits'].unflatten(2, (4, 4, 3)).movedim(4, 2).flatten(2)  # (row, column, colour) there
    torch.testing.assert_close(logits.flatten(1, 2), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in NORMALISATION.values())
    normalised = ((image + 1) / 2 - mean) / deviation
    expected = peer['out/image']
    torch.testing.assert_close(normalised, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
