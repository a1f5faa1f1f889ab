"""Train a tokenizer to reproduce its input: reconstruction losses on pixels, and what the quantizer asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import Loss, Task, Tokenizer
from vq.registries import VQTaskRegistry


class AutoEncoding(nn.Module):
    """The root the optimizer owns: image -> reconstruction, tokens and the quantizer's losses in one forward."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) float -> reconstruction (B, 3, H, W), tokens (B, *token_shape), raw losses by name."""
        quantized = self.tokenizer.quantize(self.tokenizer.encode(image))
        return self.tokenizer.decode(quantized.z), quantized.tokens, quantized.losses


@VQTaskRegistry.register_()
class ImageTokenization(Task):
    """total = sum of weighted pixel losses + weighted quantizer losses. One optimizer, named ``tokenizer``."""

    def __init__(self, tokenizer: Tokenizer, losses: dict[str, Loss]) -> None:
        super().__init__()
        if not tokenizer.can_decode:
            raise ConfigError(
                f'{type(tokenizer).__name__} makes no pixels, so it cannot be trained to reproduce images',
                'Train it with its own task, and a decoder for it with the image reconstruction task.',
            )
        self.tokenizer, self.losses = tokenizer, nn.ModuleDict(losses)
        self._roots: dict[str, nn.Module] = {'tokenizer': AutoEncoding(tokenizer)}  # a dict: not registered a second time
        self.outputs = Outputs()

    @property
    def codebook_size(self) -> int:
        return self.tokenizer.codebook_size

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        image = to_float(batch.image)
        reconstruction, tokens, quantizer_losses = roots['tokenizer'](image)
        self.outputs = Outputs(reconstruction.detach(), tokens)
        yield 'tokenizer', self._collect(image, reconstruction, quantizer_losses)

    def _collect(self, image: Tensor, reconstruction: Tensor, quantizer_losses: Mapping[str, Tensor]) -> Losses:
        losses = Losses()
        for name, loss in self.losses.items():
            assert isinstance(loss, Loss)
            losses.add(name, loss(reconstruction, image), loss.weight)
        weights = self.tokenizer.loss_weights
        for name, value in quantizer_losses.items():
            losses.add(name, value, weights.get(name, 1.0))
        return losses

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        image = to_float(batch.image)
        reconstruction, tokens, quantizer_losses = self._roots['tokenizer'](image)
        losses = self._collect(image, reconstruction, quantizer_losses)
        return Outputs(reconstruction, tokens, {**losses.values, 'total': losses.total})

    def update(self, ok: Tensor | None = None) -> None:
        self.tokenizer.update(ok)
