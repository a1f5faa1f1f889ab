"""``vq.load``: a tokenizer, or a generator, from its run or from a converted file, ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.records import to_float, to_uint8
from vq.core.trust import import_modules
from vq.interfaces import Task, Tokenizer
from vq.io.runs import Run, Weights, find
from vq.io.tensorfile import damaged
from vq.io.weights import load_model_from
from vq.registries import VQModelRegistry
from vq.tasks.sequence_modeling.loaded import frozen_parts, load_generator


class LoadedTokenizer:
    """A tokenizer in eval mode on one device. Images are uint8 (B, 3, H, W), or float in [-1, 1]."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, image_size: int, source: str) -> None:
        self.model = tokenizer.to(device).eval()
        self.device, self.image_size, self.source = device, image_size, source

    @property
    def codebook_size(self) -> int:
        return self.model.codebook_size

    @property
    def continuous(self) -> bool:
        """Whether the tokenizer has latents and no tokens."""
        return self.model.codebook_size == 0

    @property
    def token_shape(self) -> tuple[int, ...]:
        """The shape of the tokens of an image of ``image_size``."""
        return self.model.token_shape(self.image_size)

    def _float(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f'images have the shape {tuple(images.shape)}', 'Give (B, 3, H, W), uint8 or float in [-1, 1].')
        images = images.to(self.device)
        return to_float(images) if images.dtype == torch.uint8 else images.float()

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Images -> tokens int64 (B, *token_shape)."""
        return self.model.tokenize(self._float(images))

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> Tensor:
        """Tokens -> images uint8 (B, 3, H, W)."""
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.codebook_size:
            raise UserError(
                f'tokens reach from {low} to {high}, and the codebook has {self.codebook_size} codes',
                'Use the tokenizer that made these tokens.',
            )
        return to_uint8(self.model.detokenize(tokens.to(self.device).long()))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images -> latents float (B, C, h, w): before quantization, or the mean if ``continuous``."""
        return self.model.encode(self._float(images)).mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents, or code vectors, (B, C, h, w) -> images uint8 (B, 3, H, W)."""
        return to_uint8(self.model.decode(latents.to(self.device)))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images -> images uint8, through the tokens, or through the mean if ``continuous``."""
        return self.decode(self.encode(images)) if self.continuous else to_uint8(self.model.detokenize(self.tokenize(images)))

    def __repr__(self) -> str:
        size = 'continuous' if self.continuous else f'{self.codebook_size} codes, {self.token_shape} tokens'
        return f'{type(self.model).__name__}({self.source}, {size}, on {self.device})'


def load(
    name: str | Path,
    device: str | torch.device = 'cpu',
    weights: Weights = 'auto',
    work_dir: str | Path = 'work_dirs',
    trust: bool = False,
) -> Any:
    """The tokenizer of a run (its NAME, its folder, or one of its checkpoint folders), of a converted file, or of the catalog
    of published tokenizers, by its name. For the run of a generator, the generator with its tokenizer: a ``LoadedGenerator``.

    No code in a run is executed. ``trust``: import the modules that the run names in ``custom_imports``.
    """
    run = find(name, work_dir, trust)
    import_modules(run.custom_imports)
    return load_run(run, device, weights)


def load_run(run: Run, device: str | torch.device = 'cpu', weights: Weights = 'auto') -> Any:
    """What ``load`` gives for a run that was found. Its custom imports are imported already."""
    if run.spec.kind == 'generator':
        return load_generator(run, weights, device)
    if 'tokenizer' not in run.model:
        raise UserError(
            f'{run.weights} holds a {run.model.get("type")}, which has no tokenizer', 'Give the run of a tokenizer.'
        )
    if run.checkpoint is None:
        check_converted(run)
    # only the tokenizer: losses and discriminators are not needed, and can require files of their own
    tokenizer = VQModelRegistry.build(run.model['tokenizer'], 'model.tokenizer')
    fill(tokenizer, run, weights)
    image_size = 256 if run.spec.image is None else run.spec.image[0]
    return LoadedTokenizer(tokenizer, torch.device(device), image_size, str(run.weights))


def check_converted(run: Run) -> None:
    """Check that the tensors of a file from outside match its config, before memory is allocated for them."""
    from vq.assembly.matching import fit

    about = run.about
    on_meta = fit(about.tokenizer, about.shapes, str(run.weights))
    try:
        (on_meta.token_shape if on_meta.codebook_size else on_meta.latent_shape)(about.image_size)
    except UserError as error:
        raise damaged(run.weights, error.message) from error


def fill(tokenizer: Tokenizer, run: Run, weights: Weights = 'auto') -> None:
    """Load the keys under ``tokenizer.`` of a run; frozen parts read their own files."""
    task = Task()
    task.tokenizer = tokenizer
    load_model_from(task, [run], weights=weights)
    for part in frozen_parts(tokenizer, run):
        part.load_pretrained()
