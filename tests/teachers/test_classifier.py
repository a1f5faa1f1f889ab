"""A classifier as a feature network: its features are the input of its last layer, and a run is enough to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.tasks.recipes import make_task
from tests.tasks.test_image_classification import make_batch, make_encoder, make_probe
from vq.core.errors import ConfigError, UserError
from vq.core.records import to_float
from vq.registries import VQFeatureNetworkRegistry
from vq.tasks.image_classification.task import ImageClassification
from vq.teachers.classifier import ClassifierFeatures, classifier_features


def make_network(**settings: Any) -> ClassifierFeatures:
    torch.manual_seed(0)
    task = ImageClassification(make_encoder(), classes=4)
    task.head.norm.running_mean.normal_()
    return ClassifierFeatures(task, **settings)


def test_features_are_what_the_last_layer_takes() -> None:
    network, image = make_network(), make_batch(image_size=16).image
    taken = []
    network.classifier.head.linear.register_forward_hook(lambda _, inputs, output: taken.append((inputs[0], output)))
    found = network(image)
    expected = network.classifier.validation_step(make_batch(image_size=16))
    assert found.pooled.shape == (5, network.dimension) and found.spatial is None
    assert torch.equal(found.pooled, taken[0][0]) and torch.equal(found.logits, taken[0][1])
    assert torch.equal(found.logits, expected.logits)


def test_it_is_frozen_and_in_fp32() -> None:
    network, image = make_network().train(), make_batch(image_size=16).image
    plain = network(image)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(network(image).pooled, plain.pooled)
    assert not [part for part in network.modules() if part.training]
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not plain.pooled.requires_grad


def test_images_of_another_size_are_resized() -> None:
    network, image = make_network(image_size=16), make_batch(image_size=30).image
    resized = F.interpolate(to_float(image), (16, 16), mode='bilinear', antialias=True)
    assert torch.equal(network(image).pooled, network.classifier.represent(resized)[0])
    small = make_batch(image_size=16).image
    assert torch.equal(network(small).pooled, make_network()(small).pooled)
    assert '16 x 16' in network.description['preprocessing'] and 'none' in make_network().description['preprocessing']


@pytest.mark.parametrize(
    ('dtype', 'shape'), [(torch.float32, (2, 3, 16, 16)), (torch.uint8, (2, 1, 16, 16)), (torch.uint8, (3, 16, 16))]
)
def test_images_must_be_pictures(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r'classifier was given .* of the shape'):
        make_network()(torch.zeros(shape, dtype=dtype))


def test_other_tasks_and_missing_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match='AdversarialTokenization has no features'):
        ClassifierFeatures(make_task())
    with pytest.raises(UserError, match='no weights for the classifier'):
        make_network().load_pretrained()
    assert make_network().pretrained_files() == []


def test_a_probe_brings_the_files_of_its_tokenizer() -> None:
    network = ClassifierFeatures(make_probe(weights='tokens.safetensors'), weights='probe.safetensors')
    assert network.pretrained_files() == [Path('probe.safetensors'), Path('tokens.safetensors')]


def test_it_is_built_without_memory() -> None:
    from vq.core.config import PyConfig

    config = PyConfig.load('configs/models/digits_features.py')
    with torch.device('meta'):
        network = VQFeatureNetworkRegistry.build(config)
        assert network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).pooled.shape == (2, 64)


def test_a_run_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run, checkpoint or file 'digits'"):
        classifier_features('digits')
    Path('weights.safetensors').write_bytes(b'')
    with pytest.raises(UserError, match='without the config of its network'):
        classifier_features('weights.safetensors')
