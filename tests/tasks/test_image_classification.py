"""The classification task: a head equal to torch's, a frozen tokenizer, checkpoints that record the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.runners.test_no_waiting import nobody_waits
from tests.tasks.recipes import make_tokenizer
from vq.core import collectives
from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch, to_float
from vq.encoders.convolutional import ConvEncoder
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.io.checkpoints import model_state
from vq.io.weights import load_model_from
from vq.registries import VQModelRegistry
from vq.tasks.image_classification.head import LinearHead
from vq.tasks.image_classification.task import ImageClassification


def make_batch(size: int = 5, seed: int = 1, image_size: int = 32, classes: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8, generator=generator)
    category = torch.randint(classes, (size,), generator=generator)
    return Batch(image, [str(index) for index in range(size)], torch.arange(size), category)


def make_probe(**settings: Any) -> ImageClassification:
    torch.manual_seed(0)
    return ImageClassification(FrozenTokenizer(make_tokenizer(), **settings), classes=4)


def make_encoder() -> ConvEncoder:
    return ConvEncoder(width=4, multipliers=(1, 1), residual_blocks=1, attention_levels=(), norm_groups=2, out_channels=6)


class TorchHead(nn.Module):
    """The same head with torch's layers."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False, eps=1e-6)
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.norm(features.mean((2, 3))))


# the head


def test_head_equals_torch_in_training_and_after() -> None:
    head, oracle = LinearHead(7, 3), TorchHead(7, 3)
    oracle.load_state_dict(head.state_dict())  # the keys are torch's
    for step in range(3):
        features = torch.randn(5, 7, 3, 2) * (1 + step) + step
        found, expected = (features.clone().requires_grad_() for _ in range(2))
        head(found).square().sum().backward()
        oracle(expected).square().sum().backward()
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.linear.weight.grad, oracle.linear.weight.grad)
    torch.testing.assert_close(dict(head.named_buffers())['norm.running_var'], oracle.norm.running_var)
    features = torch.randn(4, 7, 5, 5)
    torch.testing.assert_close(head.eval()(features), oracle.eval()(features))
    assert not [name for name, _ in head.named_parameters() if name.startswith('norm')]


def test_first_weights() -> None:
    head = LinearHead(300, 200)
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.linear.bias.any()


def test_a_grid_keeps_where_things_are() -> None:
    head = LinearHead(2, 3, grid=2).eval()
    features = torch.randn(3, 2, 4, 6)
    quarters = [features[:, :, y : y + 2, x : x + 3].mean((2, 3)) for y in (0, 2) for x in (0, 3)]
    expected = torch.stack(quarters, 2).flatten(1) / (1 + 1e-6) ** 0.5
    torch.testing.assert_close(head.pool(features), expected)


def learn(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient and running statistics after one step on these rows of a batch; two ranks have half of the rows each."""
    torch.manual_seed(3)
    head, features, category = LinearHead(6, 4), torch.randn(8, 6, 2, 2) * 3, torch.arange(8) % 4
    own = rows[collectives.rank() :: collectives.size()]
    F.cross_entropy(head(features[own]), category[own]).backward()
    gradient = collectives.all_reduce(head.linear.weight.grad) / collectives.size()
    return gradient, head.norm.running_mean, head.norm.running_var


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(gloo_pool: Any) -> None:
    alone = learn(list(range(8)))
    first, second = gloo_pool.run(learn, list(range(8)))
    for found, other, expected in zip(first, second, alone, strict=True):
        assert torch.equal(found, other)
        torch.testing.assert_close(found, expected)


# outputs of a frozen tokenizer


def shipped_tokenizer(name: str) -> Any:
    config = PyConfig.load(f'configs/digits/{name}.py')
    small = dict(width=8, norm_groups=2)
    part = PyConfig(config.trainer.model.tokenizer)
    part.update(dict(encoder=small, decoder=small))
    return VQModelRegistry.build(part, name)


@pytest.mark.parametrize('name', ['vq_ema', 'fsq', 'residual', 'grouped', 'multi_scale', 'lfq'])
def test_codes_are_those_of_the_tokens(name: str) -> None:
    tokenizer = shipped_tokenizer(name)
    backbone = FrozenTokenizer(tokenizer, image_size=32)
    image = to_float(make_batch().image)
    codes = backbone(image)
    assert torch.equal(codes, tokenizer.lookup(tokenizer.tokenize(image)))
    assert codes.shape == (5, backbone.out_channels, 32 // backbone.downsampling, 32 // backbone.downsampling)


@pytest.mark.parametrize('name', ['vq_ema', 'simvq', 'kl'])
def test_features_are_those_before_the_quantizer(name: str) -> None:
    tokenizer = shipped_tokenizer(name)
    backbone = FrozenTokenizer(tokenizer, gives='features', image_size=32)
    image = to_float(make_batch().image)
    features = backbone(image)
    assert torch.equal(features, tokenizer.encode(image).mean) and features.shape[1] == backbone.out_channels
    if name == 'kl':  # continuous: means either way
        assert torch.equal(features, FrozenTokenizer(tokenizer)(image))


# training


def test_probe_trains_its_head_alone() -> None:
    task, batch = make_probe(), make_batch()
    before = {name: value.clone() for name, value in task.backbone.state_dict().items()}
    task.train()
    roots = task.roots()
    assert [*roots] == ['classifier'] and roots['classifier'] is task.head
    ((name, losses),) = task.training_step(batch, roots, 1)
    losses.total.backward()
    task.update()
    assert name == 'classifier' and not task.backbone.training and task.head.training
    assert all(parameter.grad is None for parameter in task.backbone.parameters())
    assert all(parameter.grad is not None for parameter in task.head.parameters())
    assert all(torch.equal(before[name], value) for name, value in task.backbone.state_dict().items())
    with torch.no_grad():
        features = task.backbone.tokenizer.lookup(task.backbone.tokenizer.tokenize(to_float(batch.image))).mean((2, 3))
        normed = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-6).sqrt()
        logits = normed @ task.head.linear.weight.T + task.head.linear.bias
        torch.testing.assert_close(task.outputs.logits, logits)
        rows = torch.log_softmax(logits, 1)[torch.arange(5), batch.category]
        torch.testing.assert_close(losses.total.detach(), -rows.mean())


def test_an_encoder_is_trained_with_the_head() -> None:
    task, batch = ImageClassification(make_encoder(), classes=4), make_batch()
    ((_, losses),) = task.training_step(batch, task.roots(), 1)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    assert {*task.roots()['classifier'].parameters()} == {*task.parameters()}
    assert {key.partition('.')[0] for key in task.state_dict()} == {'backbone', 'head'} and not task.frozen_prefixes()


def test_validation_needs_no_categories_and_uses_running_statistics() -> None:
    task, batch = make_probe().eval(), make_batch()
    whole = task.validation_step(batch)
    alone = task.validation_step(Batch(batch.image[:1], ['0'], torch.zeros(1, dtype=torch.int64)))
    torch.testing.assert_close(alone.logits, whole.logits[:1])
    assert not alone.losses
    torch.testing.assert_close(whole.losses['cross_entropy'], F.cross_entropy(whole.logits, batch.category))
    pooled, logits = task.represent(to_float(batch.image))
    assert pooled.shape == (5, task.dimension) and torch.equal(logits, whole.logits)


def test_half_precision_stays_near() -> None:
    batch = make_batch()
    found = []
    for enabled in (False, True):
        task = ImageClassification(make_encoder(), classes=4)
        task.load_state_dict(found[0][0] if found else task.state_dict())
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            ((_, losses),) = task.training_step(batch, task.roots(), 1)
        found.append(({name: value.clone() for name, value in task.state_dict().items()}, losses.total.detach()))
    assert found[1][1].dtype == torch.float32
    assert found[1][1].item() == pytest.approx(found[0][1].item(), abs=5e-3)


def test_a_step_never_waits() -> None:
    task, batch = make_probe(gives='features'), make_batch()  # without a search, whose waits are tested with it
    with nobody_waits(torch.device('cpu')):
        ((_, losses),) = task.training_step(batch, task.roots(), 1)
        losses.total.backward()


@pytest.mark.parametrize(
    ('change', 'message'),
    [(dict(category=None), 'this dataset gives none'), (dict(category=torch.tensor([0, 1, 2, 3, 4])), 'more categories than')],
)
def test_categories_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    task, batch = make_probe(), make_batch()
    for name, value in change.items():
        setattr(batch, name, value)
    with pytest.raises(ConfigError, match=message):
        next(task.training_step(batch, task.roots(), 1))


@pytest.mark.parametrize('settings', [dict(classes=1), dict(classes=4, grid=0)])
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='2 or more classes'):
        ImageClassification(make_encoder(), **settings)


# weights


def save_tokenizer(path: Path, seed: int) -> tuple[Path, Any]:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    save_file({f'tokenizer.{name}': value for name, value in tokenizer.state_dict().items()}, path)
    return path, tokenizer


def test_tokenizer_is_read_from_its_file_and_stays_out_of_checkpoints(tmp_path: Path) -> None:
    file, source = save_tokenizer(tmp_path / 'one.safetensors', 5)
    task = make_probe(weights=str(file))
    task.backbone.load_pretrained()
    for name, value in source.state_dict().items():
        assert torch.equal(task.backbone.tokenizer.state_dict()[name], value)
    assert task.backbone.pretrained_files() == [file]
    state = model_state(task)
    assert sorted(state) == ['backbone.digest', *sorted(f'head.{name}' for name in task.head.state_dict())]
    save_file(state, tmp_path / 'probe.safetensors')
    other = make_probe(weights=str(file))
    other.backbone.load_pretrained()
    load_model_from(other, [tmp_path / 'probe.safetensors'])
    batch = make_batch()
    assert torch.equal(other.eval().validation_step(batch).logits, task.eval().validation_step(batch).logits)


@pytest.mark.parametrize('first', ['weights', 'checkpoint'])
def test_a_probe_of_another_tokenizer_is_refused(tmp_path: Path, first: str) -> None:
    """In either order: the tokenizer's file first, or the checkpoint."""
    one, two = (save_tokenizer(tmp_path / f'{seed}.safetensors', seed)[0] for seed in (1, 2))
    task = make_probe(weights=str(one))
    task.backbone.load_pretrained()
    save_file(model_state(task), tmp_path / 'probe.safetensors')
    other = make_probe(weights=str(two))
    steps = [other.backbone.load_pretrained, lambda: load_model_from(other, [tmp_path / 'probe.safetensors'])]
    first_step, second_step = steps if first == 'weights' else reversed(steps)
    first_step()
    with pytest.raises(UserError, match='belongs to another tokenizer'):
        second_step()


def test_where_weights_come_from_must_be_said() -> None:
    with pytest.raises(UserError, match='which tokenizer to use') as caught:
        make_probe().backbone.load_pretrained()
    assert 'tokenizer=NAME' in caught.value.hint
    probe = make_probe(weights='nowhere')
    with pytest.raises(UserError, match="no run, checkpoint or file 'nowhere'"):
        probe.backbone.load_pretrained()
    assert probe.backbone.pretrained_files() == [Path('nowhere')]  # of a dry run, which reads none
    with pytest.raises(ConfigError, match="gives is 'tokens'"):
        make_probe(gives='tokens')
