"""configs/layout: the numbers of LayoutDiffuse's set-ups, and their data in miniature, up to a training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_celeba_mask import root as celebamask  # noqa: F401
from tests.data.test_coco import root as coco  # noqa: F401
from tests.data.test_visual_genome import root as vg  # noqa: F401
from tests.shipped import composed
from vq.assembly.compose import compose
from vq.core.random import python_stream
from vq.data.collate import collate
from vq.interfaces.pretrained import freeze
from vq.registries import VQDatasetRegistry, VQTaskRegistry
from vq.sampling.paths.betas import BetaPath

# width, multipliers, attention, heads, adapters, texts, rate, frozen, steps, guidance
SETUPS: dict[str, tuple[Any, ...]] = {
    'coco_ldm': (320, (1, 2, 4, 4), (1, 2, 4), {'heads': 8}, (1, 2), 'BERTText', 3e-5, False, 20, 5.0),
    'coco_no_text': (320, (1, 2, 4, 4), (1, 2, 4), {'heads': 8}, (1, 2), None, 3e-5, False, 100, 5.0),
    'vg_ldm': (320, (1, 2, 4, 4), (1, 2, 4), {'heads': 8}, (1, 2), 'BERTText', 2e-6, False, 100, 5.0),
    'coco_sd15': (320, (1, 2, 4, 4), (1, 2, 4), {'heads': 8}, (2, 4), 'CLIPText', 1e-4, True, 20, 7.5),
    'coco_sd21': (320, (1, 2, 4, 4), (1, 2, 4), {'head_dim': 64}, (2, 4), 'OpenCLIPText', 3e-5, True, 20, 5.0),
    'celebamask': (224, (1, 2, 3, 4), (2, 4, 8), {'head_dim': 32}, (2, 4), None, 5e-5, False, 100, 1.0),
}
LATENTS = {'coco_no_text': (4, 32, 32), 'coco_sd15': (4, 64, 64), 'celebamask': (3, 64, 64)}


@pytest.mark.slow
@pytest.mark.parametrize('name', SETUPS)
def test_a_setup_has_the_published_numbers(name: str) -> None:
    width, multipliers, attention, heads, adapters, texts, rate, frozen, steps, guidance = SETUPS[name]
    trainer = composed(f'layout/{name}_ddp.py', tiny=False).trainer
    model, network = trainer.model, trainer.model.denoiser
    assert (network.width, tuple(network.multipliers), tuple(network.attention_at)) == (width, multipliers, attention)
    assert heads.items() <= network.attn_block_type.items() and network.res_blocks == 2
    assert tuple(network.adapters_at) == adapters and network.layout_dim == 128
    assert trainer.optimizers.denoiser.lr == rate and trainer.optimizers.denoiser.weight_decay == 0
    assert (network.trains == 'adapters') is frozen
    assert (model.sampler.type, model.sampler.steps, model.guidance.scale) == ('PLMS', steps, guidance)
    assert trainer.dataloader.batch_size * trainer.strategy.accumulate == 256
    parts = model.conditioner.get('parts', {})
    assert parts.get('text', {}).get('encoder', {}).get('type') == texts
    of_texts = {'BERTText': (1280, 64, True), 'CLIPText': (768, 0, False), 'OpenCLIPText': (1024, 0, False)}
    if texts is not None:
        told = network.attn_block_type
        assert (network.sequence_dim, told.prompts, told.image_tokens) == of_texts[texts]
    path = BetaPath(model.path.schedule, model.path.steps, model.path.get('start'), model.path.get('end'))
    first, last = (1 - (path.level_at(t).alpha / path.level_at(t - 1e-3).alpha) ** 2 for t in (1e-3, 1.0))
    ends = (0.0015, 0.0195) if name == 'celebamask' else (0.00085, 0.012)
    assert first == pytest.approx(ends[0], rel=1e-5) and last == pytest.approx(ends[1], rel=1e-5)
    if name in LATENTS:
        with torch.device('meta'):
            task: Any = VQTaskRegistry.build(model, 'model')
        assert (task.space.spec.channels, *task.space.spec.cells) == LATENTS[name]
        assert texts is None or task.conditioner.parts['text'].encoder.dim == network.sequence_dim


@pytest.mark.parametrize(
    ('name', 'data'), [('coco_ldm', 'coco'), ('coco_no_text', 'coco'), ('vg_ldm', 'vg'), ('celebamask', 'celebamask')]
)
def test_its_data_train(name: str, data: str, request: pytest.FixtureRequest) -> None:
    """Files in miniature -> boxes, texts or maps of a batch -> a training step of the tiny form."""
    root: Path = request.getfixturevalue(data)
    config = compose(f'configs/layout/{name}_ddp.py', {'data_root': str(root), 'image_size': 32}, {}, tiny=False)
    sets = [VQDatasetRegistry.build(config[which].dataset, 'dataset') for which in ('trainer', 'validator')]
    assert sets[0].transform.func.__name__ == ('weak' if name == 'celebamask' else 'layout')
    assert sets[1].transform.func.__name__ == 'none', 'validation neither crops at random nor mirrors'
    samples = [sets[0].load(index % len(sets[0]), python_stream('test', index)) for index in range(4)]
    batch = collate(samples)
    labels = config.trainer.model.conditioner.get('parts', {}).get('layout', config.trainer.model.conditioner).labels
    if data == 'celebamask':
        assert batch.mask.shape == (4, 32, 32) and {*np.unique(batch.mask)} <= {*range(labels), 255}
    else:
        assert batch.boxes_mask.any() and int(batch.box_categories.max()) < labels
        assert (batch.boxes >= 0).all() and (batch.boxes <= 32).all()
    assert (batch.text is not None) == (name in ('coco_ldm', 'vg_ldm'))
    task: Any = VQTaskRegistry.build(composed(f'layout/{name}_ddp.py').trainer.model, 'model')
    freeze(task.train())
    ((_, losses),) = task.training_step(batch, task.roots(), 1)
    assert torch.isfinite(losses.total)
