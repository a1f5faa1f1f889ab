"""Mean and deviation of latents live in the tokenizer: with the weights once computed, the identity without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vq
from vq.cli.latents import main as measure
from vq.cli.train import main as train
from vq.core.errors import UserError
from vq.core.specs import LatentSpec
from vq.data.datasets.digits import DigitsDataset
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces.latents import LatentStatistics

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A KL autoencoder after some steps, and the files of its statistics, per channel and per element."""
    home = tmp_path_factory.mktemp('latents')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert train(['kl', 'configs/digits/kl.py', '--config-options', 'iters:60', 'evaluate:None', 'width:8']) == 0
        before = contents(home / 'work_dirs/kl')
        for per in ('channel', 'element'):
            assert (
                measure([per, 'configs/digits/kl.py', '--config-options', 'width:8', '--load-model-from', 'kl', '--per', per])
                == 0
            )
        assert contents(home / 'work_dirs/kl') == before
    return home


def training_images() -> torch.Tensor:
    digits = DigitsDataset('train')
    return torch.stack([torch.tensor(digits.read(index)) for index in range(len(digits))]).permute(0, 3, 1, 2)


@pytest.mark.parametrize('per', ['channel', 'element'])
def test_latents_of_the_training_split_have_unit_variance(home: Path, per: str) -> None:
    loaded = vq.load(home / f'work_dirs/{per}_latents/tokenizer.safetensors')
    z = torch.cat([loaded.encode(part) for part in training_images().split(256)])
    seen, axes = loaded.model.normalize(z).double(), (0, 2, 3) if per == 'channel' else (0,)
    alive = loaded.model.statistics.deviation != 1  # border cells of digits can be constant
    assert alive.float().mean() > 0.7
    torch.testing.assert_close(seen.mean(axes)[alive], torch.zeros(int(alive.sum())).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(seen.var(axes)[alive], torch.ones(int(alive.sum())).double(), rtol=0.01, atol=0)
    back = loaded.model.denormalize(loaded.model.normalize(z))
    assert ((back - z).abs() <= 1e-6 * z.abs().clamp(min=1)).all()
    assert loaded.model.spec((32, 32)).latent == LatentSpec(8, (4, 4), per)


def test_second_stages_see_them_normalized_and_decoders_do_not(home: Path) -> None:
    image = training_images()[:7].float() / 127.5 - 1
    file = home / 'work_dirs/channel_latents/tokenizer.safetensors'
    plain, normalized = vq.load(home / 'work_dirs/kl').model, vq.load(file).model
    codes = FrozenTokenizer(normalized, image_size=32)(image)
    torch.testing.assert_close(codes, normalized.normalize(plain.code(plain.encode(image))[0]))
    z = plain.code(plain.encode(image))[0]
    assert torch.equal(normalized.decode(z), plain.decode(z))
    assert not normalized.state_dict().keys() - plain.state_dict().keys() - {'statistics.mean', 'statistics.deviation'}


def test_absent_is_the_identity_in_both_directions(home: Path) -> None:
    with_them = vq.load(home / 'work_dirs/channel_latents/tokenizer.safetensors').model
    without = vq.load(home / 'work_dirs/kl').model
    z = torch.randn(2, 8, 4, 4)
    assert torch.equal(without.normalize(z), z) and without.statistics.kind is None
    without.load_state_dict(with_them.state_dict())
    assert torch.equal(without.normalize(z), with_them.normalize(z))
    bare = {key: value for key, value in with_them.state_dict().items() if 'statistics' not in key}
    without.load_state_dict(bare)
    assert torch.equal(without.normalize(z), z)


def test_training_on_drops_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    options = ['--config-options', 'iters:60', 'evaluate:None', 'width:8']
    given = [
        '--load-model-from',
        'work_dirs/channel_latents/tokenizer.safetensors',
        '--override',
        '.trainer.iters:1',
        '.trainer.optimizers.tokenizer.schedule:None',
    ]
    assert train(['on', 'configs/digits/kl.py', *options, *given]) == 0
    saved = load_file(home / 'work_dirs/on/checkpoints/iter_1/model.safetensors')
    assert not [key for key in saved if 'statistics' in key]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'mean': None}, 'a mean or a deviation, and not both'),
        ({'deviation': torch.tensor([1.0, 0.0])}, 'deviations that are not positive'),
        ({'mean': torch.tensor([1.0, float('nan')])}, 'not finite'),
    ],
)
def test_damaged_statistics_are_refused(change: dict[str, Any], words: str) -> None:
    state = {'mean': torch.zeros(2), 'deviation': torch.ones(2), **change}
    with pytest.raises(UserError, match=words):
        LatentStatistics().load_state_dict({key: value for key, value in state.items() if value is not None})


def test_latents_of_another_size_are_refused_per_element() -> None:
    statistics = LatentStatistics()
    statistics.put(torch.zeros(8, 2, 2), torch.ones(8, 2, 2))
    with pytest.raises(UserError, match=r'latents have the shape \(8, 4, 4\), and their statistics are for \(8, 2, 2\)'):
        statistics.normalize(torch.zeros(1, 8, 4, 4))
