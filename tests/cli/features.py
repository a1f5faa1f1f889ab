"""A fast feature network for tests of commands, and folders of images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vq.interfaces import FeatureNetwork, Features
from vq.registries import VQFeatureNetworkRegistry

WIDTH = 5


@VQFeatureNetworkRegistry.register_()
class ProjectionOfTests(FeatureNetwork):
    """A random linear map of the first 16 x 16 pixels, in float64; with ``broken`` features are NaN."""

    dimension = WIDTH

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.map = nn.Parameter(torch.randn(3 * 16 * 16, WIDTH, generator=draw) / 20, requires_grad=False)
        self.broken = broken

    @property
    def description(self) -> dict[str, str]:
        return {'network': 'ProjectionOfTests', 'preprocessing': 'none', 'precision': 'fp32'}

    def pretrained_files(self) -> list[Path]:
        return []

    def load_pretrained(self) -> None:
        """It has no file."""

    def forward(self, image: Tensor) -> Features:
        pooled = (image[:, :, :16, :16].flatten(1).double() / 255 @ self.map.double()).float()
        if self.broken:
            pooled[0, 0] = float('nan')
        return Features(pooled, pooled * 3, pooled[:, 1:])


def features_of(images: np.ndarray) -> np.ndarray:
    """(N, 16, 16, 3) uint8 -> (N, WIDTH) float64, by NumPy."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(np.float64) / 255
    return (rows @ ProjectionOfTests().map.double().numpy()).astype(np.float32).astype(np.float64)


def pictures(seed: int, count: int = 40, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def save_folder(folder: Path, images: np.ndarray, suffix: str = '.png', **settings: Any) -> Path:
    """Save images, every other one in a subfolder."""
    for number, image in enumerate(images):
        path = folder / ('deep/er' if number % 2 else '.') / f'{number:03d}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **settings)
    return folder


STUB = ['--config-options', 'num_workers:0', '--override', '.metrics.features.network.type::ProjectionOfTests']


def run_fid(folder: str, *arguments: str) -> int:
    """``tools/fid.py`` from a folder, in this process; also what ranks of the pool run."""
    from vq.cli import fid_of

    before = Path.cwd()
    os.chdir(folder)
    try:
        return fid_of.main([*arguments, *STUB])
    finally:
        os.chdir(before)


def figures(folder: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / name / 'fid.json').read_text())
    return {key: value for key, value in record['results'].items() if key != 'seconds'}
