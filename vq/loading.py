"""``vq.load``: a tokenizer, or a generator, from its run or from a converted file, ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vq.core.config import PyConfig
from vq.core.errors import UserError, listing, nearest
from vq.core.records import to_float, to_uint8
from vq.interfaces import Pretrained, Task, Tokenizer
from vq.io.pretrained import pretrained_root
from vq.io.published import catalog
from vq.io.published.converted import read_about
from vq.io.tensorfile import damaged
from vq.registries import VQModelRegistry


class LoadedTokenizer:
    """A tokenizer in eval on one device. Images are uint8 (B, 3, H, W), or float in [-1, 1]."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, image_size: int, source: str) -> None:
        self.model = tokenizer.to(device).eval()
        self.device, self.image_size, self.source = device, image_size, source

    @property
    def codebook_size(self) -> int:
        return self.model.codebook_size

    @property
    def continuous(self) -> bool:
        """Whether it has latents and no tokens."""
        return self.model.codebook_size == 0

    @property
    def token_shape(self) -> tuple[int, ...]:
        """For images of ``image_size``."""
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
                'These are tokens of another tokenizer.',
            )
        return to_uint8(self.model.detokenize(tokens.to(self.device).long()))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images -> latents float (B, C, h, w): of discrete tokenizers before they are quantized, else the means."""
        return self.model.encode(self._float(images)).mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents, or code vectors, (B, C, h, w) -> images uint8 (B, 3, H, W)."""
        return to_uint8(self.model.decode(latents.to(self.device)))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images -> images uint8, through the tokens, or through the means where there are none."""
        return self.decode(self.encode(images)) if self.continuous else to_uint8(self.model.detokenize(self.tokenize(images)))

    def __repr__(self) -> str:
        size = 'continuous' if self.continuous else f'{self.codebook_size} codes, {self.token_shape} tokens'
        return f'{type(self.model).__name__}({self.source}, {size}, on {self.device})'


def load(
    name: str | Path,
    device: str | torch.device = 'cpu',
    weights: Literal['auto', 'model', 'ema'] = 'auto',
    work_dir: str | Path = 'work_dirs',
) -> Any:
    """The tokenizer of a run (its NAME, its folder, or one of its checkpoint folders), of a converted file, or a published
    one by its name in the catalog. Of the run of a generator, the generator with its tokenizer: a ``LoadedGenerator``.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        run = look_for_run(name, Path(work_dir))
        entry = catalog.find(str(name)) if run is None else None
        if entry is None:
            return _load_run(find_run(name, Path(work_dir)), weights, device)
        file = converted_file(entry)
    return _load_converted(file, device)


def _load_run(folder: Path, weights: Literal['auto', 'model', 'ema'], device: str | torch.device) -> Any:
    from vq.cli.compose import import_custom, runner_config
    from vq.cli.counting import image_size_of

    checkpoint = newest(folder)
    config = PyConfig.load((checkpoint / 'config.py').resolve())
    import_custom(config)
    runner = runner_config(config, 'validator' if 'validator' in config else 'trainer')
    model = runner.get('model', {})
    if 'generator' in model:
        from vq.tasks.sequence_modeling.loaded import load_generator

        return load_generator(model, checkpoint, weights, device)
    if 'tokenizer' not in model:
        raise UserError(f'{folder} holds a {model.get("type")}, which has no tokenizer', 'Give the run of a tokenizer.')
    # no more than the tokenizer: losses and discriminators would only be thrown away, and may want files of their own
    tokenizer = VQModelRegistry.build(model['tokenizer'], 'model.tokenizer')
    fill(tokenizer, checkpoint, weights)
    return LoadedTokenizer(tokenizer, torch.device(device), image_size_of(runner.get('dataset', {})), str(checkpoint))


def _load_converted(file: Path, device: str | torch.device) -> LoadedTokenizer:
    from vq.cli.fitting import fit
    from vq.io.weights import sniff

    if sniff(file) != 'safetensors':
        raise UserError(
            f'{file} is a torch file, and does not say what tokenizer it is of',
            f'Convert it: python tools/convert_checkpoints.py KIND {file}',
        )
    about = read_about(file)
    on_meta = fit(about.tokenizer, about.shapes, str(file))
    try:
        (on_meta.token_shape if on_meta.codebook_size else on_meta.latent_shape)(about.image_size)
    except UserError as error:
        raise damaged(file, error.message) from error
    tokenizer = VQModelRegistry.build(about.tokenizer, 'tokenizer')
    fill(tokenizer, file)
    return LoadedTokenizer(tokenizer, torch.device(device), about.image_size, str(file))


def fill(tokenizer: Tokenizer, source: Path, weights: Literal['auto', 'model', 'ema'] = 'auto') -> None:
    """Load what stands under ``tokenizer.`` in a checkpoint or file; frozen parts read their own files."""
    from vq.io.weights import load_model_from

    task = Task()
    task.tokenizer = tokenizer
    load_model_from(task, [source], weights=weights)
    for part in tokenizer.modules():
        if isinstance(part, Pretrained) and part.frozen:
            part.load_pretrained()


def converted_file(entry: catalog.Published) -> Path:
    """Where a published tokenizer lies after it was prepared."""
    if entry.kind is None:
        raise UserError(f"'{entry.name}' is no tokenizer ({entry.about})", 'It is read by the parts that need it.')
    file = pretrained_root() / entry.converted
    if not file.is_file():
        raise UserError(
            f"'{entry.name}' ({entry.about}) is not there yet: {file} is missing",
            f'Fetch and convert it: python tools/prepare_checkpoints.py {entry.name}',
        )
    return file


def look_for_run(name: str | Path, work_dir: Path) -> Path | None:
    return next((folder for folder in (Path(name), work_dir / name, work_dir / 'dry_run' / name) if folder.is_dir()), None)


def find_run(name: str | Path, work_dir: Path) -> Path:
    """The folder of a run or checkpoint."""
    folder = look_for_run(name, work_dir)
    if folder is not None:
        return folder
    runs = (
        sorted(str(path.parent.relative_to(work_dir)) for path in work_dir.glob('**/checkpoints')) if work_dir.is_dir() else []
    )
    published = [entry.name for entry in catalog.CATALOG if entry.kind is not None]
    also = f' Published: {listing(published)}.' if published else ''
    raise UserError(
        f"there is no run or folder '{name}'{nearest(str(name), [*runs, *published])}",
        f'Runs in {work_dir}: {", ".join(runs[:20]) or "none"}.{also}',
    )


def newest(folder: Path) -> Path:
    """A checkpoint folder itself, or the latest complete one of a run."""
    from vq.io import checkpoints

    if checkpoints.is_complete(folder):
        return folder
    found = checkpoints.latest(folder / 'checkpoints')
    if found is None:
        raise UserError(f'{folder} has no complete checkpoint', 'Train the run first.')
    return found
