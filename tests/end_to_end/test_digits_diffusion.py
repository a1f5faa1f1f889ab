"""Digits by diffusion in latents, from nothing, within a minute of CPU time: they are of the classes that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import vq
from tests.runners.support import commands_here
from vq.cli.latents import main as measure
from vq.cli.train import main as train
from vq.data.datasets.digits import DigitsDataset
from vq.metrics.likeness import within_class_distance
from vq.report.images import as_pixels, as_tensor, read_images

pytestmark = pytest.mark.slow
CLASSES, EACH = [*range(10)], 10


class Judge:
    """A support vector machine of scikit-learn on pictures of 8 x 8 means: no part of this toolkit."""

    def __init__(self) -> None:
        from sklearn.svm import SVC

        learned, self.held_out = (read_images(DigitsDataset(split, image_size=32)) for split in ('train', 'validation'))
        self.machine = SVC(gamma=0.001).fit(self.means(learned.pixels), learned.category)

    @staticmethod
    def means(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, 32, 32, 3) -> (N, 64), from 0 to 16 as in the data of scikit-learn."""
        return pixels.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4, 5)).reshape(-1, 64) * (16 / 255)

    def agreement(self, pixels: NDArray[np.uint8], asked: NDArray[np.int64]) -> float:
        """The share of images (N, 32, 32, 3) that look like the class ``asked`` (N,)."""
        return float((self.machine.predict(self.means(pixels)) == asked).mean())


def test_digits_are_of_the_classes_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped config with fewer steps, on a small continuous tokenizer. Without a condition, or with other requests, the
    same check sees chance; and digits of a class differ from each other as real ones do."""
    monkeypatch.chdir(tmp_path)
    judge = Judge()
    assert judge.agreement(judge.held_out.pixels, judge.held_out.category) >= 0.95
    with commands_here(dry=False):
        assert train(['kl', 'configs/digits/kl.py', 'iters=200', 'width=8', 'latent_channels=4', 'evaluate=None']) == 0
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        on_it = ['tokenizer_run=work_dirs/kl_latents/tokenizer.safetensors', 'gives=codes', 'iters=400', 'evaluate=None']
        assert train(['denoiser', 'configs/diffusion/digits.py', *on_it]) == 0
    loaded, asked = vq.load('denoiser'), np.array(CLASSES * EACH)
    drawn = {scale: as_pixels(loaded.sample(CLASSES, len(asked), guidance=scale)) for scale in (2.0, 0.0)}
    assert judge.agreement(drawn[2.0], asked) >= 0.9
    assert judge.agreement(drawn[0.0], asked) <= 0.3, 'guidance 0 leaves the classes out: one in ten is right by chance'
    shuffled = np.random.default_rng(0).permutation(asked)
    assert judge.agreement(drawn[2.0], shuffled) <= 0.3, 'the check sees requests, not only digits'

    real = within_class_distance(judge.held_out.tensor, torch.from_numpy(judge.held_out.category))
    assert within_class_distance(as_tensor(drawn[2.0]), torch.from_numpy(asked)) >= 0.65 * real
