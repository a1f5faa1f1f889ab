"""Digits by energy diffusion, from nothing, in a minute of CPU time: of the classes asked for, and what the energy knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vq
from tests.end_to_end.test_digits_diffusion import CLASSES, EACH, Judge
from tests.runners.support import commands_here
from vq.cli.latents import main as measure
from vq.cli.train import main as train
from vq.core.drawing import Wanted
from vq.interfaces.conditions import Asked
from vq.metrics.ranking import auroc
from vq.report.images import as_pixels, as_tensor
from vq.report.letters import letters
from vq.tasks.diffusion.energies import energies_of_images, energies_on_the_way, share_that_fell

pytestmark = pytest.mark.slow


def test_energies_draw_digits_fall_and_tell_letters_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped config with fewer steps, on a small continuous tokenizer. Each check is shown to fail where it must."""
    monkeypatch.chdir(tmp_path)
    judge = Judge()
    with commands_here(dry=False):
        assert train(['kl', 'configs/digits/kl.py', 'iters=150', 'width=8', 'latent_channels=4', 'evaluate=None']) == 0
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        on_it = ['tokenizer_run=work_dirs/kl_latents/tokenizer.safetensors', 'gives=codes', 'iters=250', 'evaluate=None']
        assert train(['denoiser', 'configs/energy/digits.py', *on_it]) == 0
    loaded, asked = vq.load('denoiser'), np.array(CLASSES * EACH)
    drawn = {scale: as_pixels(loaded.sample(CLASSES, len(asked), guidance=scale)) for scale in (2.0, 0.0)}
    assert judge.agreement(drawn[2.0], asked) >= 0.85
    assert judge.agreement(drawn[0.0], asked) <= 0.3, 'guidance 0 leaves the classes out: one in ten is right by chance'
    assert judge.agreement(drawn[2.0], np.random.default_rng(0).permutation(asked)) <= 0.3, 'the check sees requests'

    task, ids = loaded.task, [*range(20)]
    way = energies_on_the_way(task, Wanted(ids, 3407, task.condition(Asked(CLASSES), ids, loaded.device)))
    assert share_that_fell(way) >= 0.95
    assert share_that_fell(way.flip(0)) <= 0.05, 'the other way round they rise'

    real, others = judge.held_out.tensor, as_tensor(letters(150, (32, 32)))
    known, unknown = energies_of_images(task, real), energies_of_images(task, others)
    assert auroc(known, unknown) >= 0.8
    halves = known[::2], known[1::2]
    assert 0.35 <= auroc(*halves) <= 0.65, 'digits and digits are alike'
    assert torch.isfinite(unknown).all()
