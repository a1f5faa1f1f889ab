"""A frozen tokenizer as an encoder, for a task that trains on its codes or features."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.core.specs import LatentSpec, TokenSpec, size_of
from vq.interfaces import Encoder, Quantizer, Task, Tokenizer
from vq.io.kept_digest import KeptDigest
from vq.io.runs import Run, find, weight_files
from vq.io.weights import compare, load_model_from
from vq.registries import VQEncoderRegistry


@VQEncoderRegistry.register_()
class FrozenTokenizer(KeptDigest, Encoder):
    """image (B, 3, H, W) -> code vectors (B, out_channels, h, w), without gradients, always in eval mode.

    - ``weights``: a name that ``vq.load`` takes (see ``vq/io/runs.py``). Read by ``load_pretrained``.
    - ``gives``: 'codes' are the code vectors of the tokens, whatever the shape of the tokens (for continuous tokenizers the
      mean of the latent); 'features' are the input of the quantizer.
    - ``image_size``: the size of the input images, a number or (height, width). ``tokens`` and ``latent`` describe their
      tokens and latents, ``downsampling`` is the ratio of image size to map size.

    Code vectors are normalized if the tokenizer has statistics of its latents. A decoder takes them as they were: see
    ``Tokenizer.denormalize``.

    A digest of the file goes into checkpoints in place of the weights: see ``KeptDigest``.
    """

    noun = 'tokenizer'

    def __init__(
        self,
        tokenizer: Tokenizer,
        weights: str | None = None,
        gives: Literal['codes', 'features'] = 'codes',
        image_size: int | tuple[int, int] = 256,
    ) -> None:
        super().__init__()
        if gives not in ('codes', 'features'):
            raise ConfigError(f"gives is '{gives}'", "Write 'codes' or 'features'.")
        for name in tokenizer.training_only:
            setattr(tokenizer, name, None)
        self.tokenizer, self.weights, self.gives = tokenizer, weights, gives
        self.image_size = size_of(image_size)
        latent = self.latent
        quantizer = getattr(tokenizer, 'quantizer', None)
        before = gives == 'features' and isinstance(quantizer, Quantizer)
        self.out_channels = quantizer.feature_dim if before else latent.channels  # type: ignore[union-attr]
        self.downsampling = self.image_size[0] // latent.cells[0]
        self.add_digest()
        self.requires_grad_(False)
        self.eval()

    @property
    def latent(self) -> LatentSpec:
        """The latent of an image of ``image_size``."""
        found = self.tokenizer.spec(self.image_size).latent
        if found is None:
            raise ConfigError(
                f'{type(self.tokenizer).__name__} has no latents',
                'Take a tokenizer whose codes are vectors: see Tokenizer.spec.',
            )
        return found

    @property
    def tokens(self) -> TokenSpec:
        """The tokens of an image of ``image_size``."""
        return self.tokenizer.token_spec(self.image_size)

    def train(self, mode: bool = True) -> FrozenTokenizer:
        """Frozen: always in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        latent = self.tokenizer.encode(image)
        return latent.mean if self.gives == 'features' else self.tokenizer.normalize(self.tokenizer.code(latent)[0])

    def forget_decoder(self) -> None:
        """Drop ``decoder`` and ``pre_decode``, for callers that have their own."""
        for name in ('decoder', 'pre_decode'):
            if isinstance(getattr(self.tokenizer, name, None), nn.Module):
                setattr(self.tokenizer, name, None)
        self.tokenizer.can_decode = False

    # weights

    def pretrained_files(self) -> list[Path]:
        return weight_files(self.weights)

    def load_pretrained(self) -> None:
        report = load_model_from(self._holder(), [self._source()])
        self.keep_digest(report.sources[0].sha256, str(report.sources[0]))

    def check_pretrained(self, name: str) -> None:
        """Raise unless the weights of the tokenizer ``name`` have the shapes of this part, which can be on the meta device."""
        compare(self._holder(), [find(name)])

    def _holder(self) -> Task:
        holder = Task()  # Task.frozen_prefixes skips sub-modules that load their own pretrained files
        holder.tokenizer = self.tokenizer
        return holder

    def _source(self) -> Run:
        if self.weights is None:
            raise UserError(
                'the config does not say which tokenizer to use',
                'Name the run of a tokenizer: tokenizer=NAME, or, with it_config, --load-model-from.',
            )
        return find(self.weights)
