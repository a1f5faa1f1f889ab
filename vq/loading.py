"""``vq.load``: a tokenizer, or a generator, from its run or from a converted file, ready to use.

    tokenizer = vq.load('digits')
    tokens = tokenizer.tokenize(['one.png', 'two.jpg'])      # int64 (2, 4, 4)
    pictures = tokenizer.detokenize(tokens, to='pil')        # two Pillow images

``vq/data/inputs.py`` lists what images can be. Results are tensors on the model's device unless ``to`` says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.records import to_uint8
from vq.core.specs import plain_size, size_of
from vq.core.trust import import_modules
from vq.data.inputs import Form, Images, Intake, ValueRange, check_form, give, take_tokens
from vq.interfaces import Task, Tokenizer
from vq.io.runs import Run, Weights, find
from vq.io.tensorfile import damaged
from vq.io.weights import load_model_from
from vq.registries import VQModelRegistry
from vq.tasks.image_segmentation.loaded import load_segmenter
from vq.tasks.loaded import load_frozen, load_generator


class LoadedTokenizer:
    """A tokenizer in eval mode on one device. ``vq/data/inputs.py`` lists what ``images`` can be; one image is a batch of one.

    Methods that make images take ``to``: 'tensor' (uint8 (B, 3, H, W)), 'numpy' (uint8 (B, H, W, 3)) or 'pil' (a list).
    ``value_range`` ('-1..1' or '0..1') says the range of floats, for one call or, in ``vq.load``, for all.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device, source: str, intake: Intake) -> None:
        self.model = tokenizer.to(device).eval()
        self.device, self.source, self.intake = device, source, intake

    @property
    def image_size(self) -> int | tuple[int, ...]:
        """The size of the images that it was trained on: a number for squares, else (height, width)."""
        return plain_size(self.intake.image_size)

    @property
    def codebook_size(self) -> int:
        return self.model.codebook_size

    @property
    def continuous(self) -> bool:
        """Whether the tokenizer has latents and no tokens."""
        return not self.model.can_tokenize

    @property
    def token_shape(self) -> tuple[int, ...]:
        """The shape of the tokens of an image of ``image_size``."""
        return self.model.token_spec(self.intake.image_size).shape

    @torch.no_grad()
    def prepare(self, images: Images, value_range: ValueRange | None = None, to: Form = 'tensor') -> Any:
        """The images as the model takes them, resized and cropped where they are paths or Pillow images."""
        check_form(to)
        return give(torch.cat([to_uint8(batch) for batch in self.intake.batches(images, self.device, value_range)]), to)

    @torch.no_grad()
    def tokenize(self, images: Images, value_range: ValueRange | None = None) -> Tensor:
        """Images -> tokens int64 (B, *token_shape)."""
        if self.continuous:
            raise UserError(f'{type(self.model).__name__} is continuous: it has no tokens', 'Take encode and decode.')
        return torch.cat([self.model.tokenize(batch) for batch in self.intake.batches(images, self.device, value_range)])

    @torch.no_grad()
    def detokenize(self, tokens: Any, to: Form = 'tensor') -> Any:
        """Tokens -> images."""
        check_form(to)
        self._need_pixels()
        found = take_tokens(tokens, self.codebook_size, self.token_shape)
        return give(torch.cat([to_uint8(self.model.detokenize(part.to(self.device))) for part in self._parts(found)]), to)

    @torch.no_grad()
    def encode(self, images: Images, value_range: ValueRange | None = None) -> Tensor:
        """Images -> latents float (B, C, h, w): before quantization, or the mean if ``continuous``."""
        return torch.cat([self.model.encode(batch).mean for batch in self.intake.batches(images, self.device, value_range)])

    @torch.no_grad()
    def decode(self, latents: Tensor, to: Form = 'tensor') -> Any:
        """Latents, or code vectors, (B, C, h, w) -> images."""
        check_form(to)
        self._need_pixels()
        found = [to_uint8(self.model.decode(part.to(self.device).float())) for part in self._parts(latents.detach())]
        return give(torch.cat(found), to)

    @torch.no_grad()
    def reconstruct(self, images: Images, value_range: ValueRange | None = None, to: Form = 'tensor') -> Any:
        """Images -> images, through the tokens, or through the mean if ``continuous``."""
        check_form(to)
        self._need_pixels()
        made = []
        for batch in self.intake.batches(images, self.device, value_range):
            model = self.model
            made.append(model.decode(model.encode(batch).mean) if self.continuous else model.detokenize(model.tokenize(batch)))
            made[-1] = to_uint8(made[-1])
        return give(torch.cat(made), to)

    def _parts(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Tokens or latents in batches whose images are as many as ``intake`` reads at once."""
        return torch.split(codes, self.intake.rows(*self.intake.image_size))

    def _need_pixels(self) -> None:
        if not self.model.can_decode:
            raise self.model.has_no_pixels(self.source)

    def __repr__(self) -> str:
        size = 'continuous' if self.continuous else f'{self.codebook_size} codes, {self.token_shape} tokens'
        return f'{type(self.model).__name__}({self.source}, {size}, images of {self.intake}, on {self.device})'


def load(
    name: str | Path,
    device: str | torch.device = 'cpu',
    weights: Weights = 'auto',
    work_dir: str | Path = 'work_dirs',
    trust: bool = False,
    value_range: ValueRange | None = None,
    batch_size: int | None = None,
) -> Any:
    """The tokenizer of a run (its NAME, its folder, or one of its checkpoint folders), of a converted file, or of the catalog
    of published tokenizers, by its name. For the run of a generator, the generator with its tokenizer: a ``LoadedGenerator``;
    for that of a segmenter a ``LoadedSegmenter``.

    No code in a run is executed. ``trust``: import the modules that the run names in ``custom_imports``. ``value_range``: the
    range of images that are floats; see ``vq/data/inputs.py``. ``batch_size``: images that go through the model at once; more
    are split. Default: as many as have a million pixels.
    """
    run = find(name, work_dir, trust)
    import_modules(run.custom_imports)
    return load_run(run, device, weights, value_range, batch_size)


def load_run(
    run: Run,
    device: str | torch.device = 'cpu',
    weights: Weights = 'auto',
    value_range: ValueRange | None = None,
    batch_size: int | None = None,
) -> Any:
    """What ``load`` gives for a run that was found. Its custom imports are imported already."""
    intake = Intake(run.spec.image or (256, 256), run.spec.preprocessing, value_range, batch_size)
    if run.spec.kind == 'generator':
        return load_generator(run, weights, device, intake)
    if run.spec.kind == 'segmenter':
        return load_segmenter(run, weights, device, intake)
    if 'tokenizer' not in run.model:
        raise UserError(
            f'{run.weights} holds a {run.model.get("type")}, which has no tokenizer', 'Give the run of a tokenizer.'
        )
    if run.checkpoint is None:
        check_converted(run)
    # only the tokenizer: losses and discriminators are not needed, and can require files of their own
    tokenizer = VQModelRegistry.build(run.model['tokenizer'], 'model.tokenizer')
    fill(tokenizer, run, weights)
    return LoadedTokenizer(tokenizer, torch.device(device), str(run.weights), intake)


def check_converted(run: Run) -> None:
    """Check that the tensors of a file from outside match its config, before memory is allocated for them."""
    from vq.assembly.matching import fit

    about = run.about
    on_meta = fit(about.tokenizer, about.shapes, str(run.weights))
    try:
        on_meta.spec(size_of(about.image_size))
    except UserError as error:
        raise damaged(run.weights, error.message) from error


def fill(tokenizer: Tokenizer, run: Run, weights: Weights = 'auto') -> None:
    """Load the keys under ``tokenizer.`` of a run; frozen parts read their own files."""
    task = Task()
    task.tokenizer = tokenizer
    load_model_from(task, [run], weights=weights)
    load_frozen(tokenizer, run)
