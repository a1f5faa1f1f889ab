"""``vq.load``: a trained tokenizer from its run, ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.core.records import to_float, to_uint8
from vq.interfaces import Tokenizer


class LoadedTokenizer:
    """A tokenizer in eval on one device. Images are uint8 (B, 3, H, W), or float in [-1, 1]."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, image_size: int, source: str) -> None:
        self.model = tokenizer.to(device).eval()
        self.device, self.image_size, self.source = device, image_size, source

    @property
    def codebook_size(self) -> int:
        return self.model.codebook_size

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
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images -> images uint8, through the tokens."""
        return to_uint8(self.model.detokenize(self.tokenize(images)))

    def __repr__(self) -> str:
        size = f'{self.codebook_size} codes, {self.token_shape} tokens'
        return f'{type(self.model).__name__}({self.source}, {size}, on {self.device})'


def load(
    name: str | Path,
    device: str | torch.device = 'cpu',
    weights: Literal['auto', 'model', 'ema'] = 'auto',
    work_dir: str | Path = 'work_dirs',
) -> LoadedTokenizer:
    """The tokenizer of a run: its NAME, its folder, or one of its checkpoint folders."""
    from vq.cli.compose import import_custom, runner_config
    from vq.cli.counting import image_size_of
    from vq.io.weights import load_model_from
    from vq.registries import VQTaskRegistry

    folder = find_run(name, Path(work_dir))
    checkpoint = newest(folder)
    config = PyConfig.load((checkpoint / 'config.py').resolve())
    import_custom(config)
    runner = runner_config(config, 'validator' if 'validator' in config else 'trainer')
    task = VQTaskRegistry.build(runner['model'], 'model')
    load_model_from(task, [checkpoint], weights=weights)
    tokenizer = getattr(task, 'tokenizer', None)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f'{folder} holds a {type(task).__name__}, which has no tokenizer', 'Give the run of a tokenizer.')
    return LoadedTokenizer(tokenizer, torch.device(device), image_size_of(runner.get('dataset', {})), str(checkpoint))


def find_run(name: str | Path, work_dir: Path) -> Path:
    """The folder of a run or checkpoint."""
    for candidate in (Path(name), work_dir / name, work_dir / 'dry_run' / name):
        if candidate.is_dir():
            return candidate
    runs = (
        sorted(str(path.parent.relative_to(work_dir)) for path in work_dir.glob('**/checkpoints')) if work_dir.is_dir() else []
    )
    raise UserError(f"there is no run or folder '{name}'", f'Runs in {work_dir}: {", ".join(runs[:20]) or "none"}.')


def newest(folder: Path) -> Path:
    """A checkpoint folder itself, or the latest complete one of a run."""
    from vq.io import checkpoints

    if checkpoints.is_complete(folder):
        return folder
    found = checkpoints.latest(folder / 'checkpoints')
    if found is None:
        raise UserError(f'{folder} has no complete checkpoint', 'Train the run first.')
    return found
