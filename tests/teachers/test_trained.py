"""Classifiers and tokenizers of this toolkit as teachers: their maps, their pooled vectors, their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.tasks.recipes import make_task
from tests.tasks.test_image_classification import make_encoder
from tests.teachers.test_teachers import images
from vq.core.errors import ConfigError, UserError
from vq.encoders.teacher import TeacherEncoder
from vq.io.checkpoints import model_state
from vq.tasks.image_classification.task import ImageClassification
from vq.teachers.trained import TrainedTeacher


def make_classifier(seed: int = 0) -> ImageClassification:
    torch.manual_seed(seed)
    task = ImageClassification(make_encoder(), classes=4)
    task.head.norm.running_mean.normal_()
    return task


def make_tokenizer(seed: int = 0) -> Any:
    return make_task(seed).tokenizer


def test_a_classifier_gives_the_map_that_it_pools() -> None:
    task, image = make_classifier(), images(16, 24)
    teacher = TrainedTeacher(classifier=task, image_size=16)
    found, (pooled, _) = teacher.features(image), task.represent(image)
    assert torch.equal(found.patches, task.backbone(image)) and torch.equal(found.pooled, pooled)
    assert (teacher.width, teacher.dimension) == (found.patches.shape[1], pooled.shape[1])
    assert 16 // teacher.patch_size == found.patches.shape[2] and teacher.channels() == teacher.width


def test_a_tokenizer_gives_what_it_quantizes() -> None:
    tokenizer, image = make_tokenizer(), images(32, 32)
    teacher = TrainedTeacher(tokenizer=tokenizer, image_size=32)
    found = teacher.features(image)
    assert torch.equal(found.patches, tokenizer.encode(image).mean)
    assert torch.equal(found.pooled, found.patches.mean((2, 3))) and found.patches.shape[1] == teacher.width
    assert 32 // teacher.patch_size == found.patches.shape[2]


def test_a_target_is_the_map_of_the_image_at_its_own_size() -> None:
    teacher = TrainedTeacher(classifier=make_classifier(), image_size=16)
    image = images(16, 16)
    own = teacher.features(image).patches
    side = own.shape[2]
    assert torch.equal(teacher.target(image, (side, side)), own)
    half = teacher.target(image, (side // 2, side // 2))
    blocks = own.unflatten(2, (side // 2, 2)).unflatten(4, (side // 2, 2))  # (B, C, h, 2, w, 2)
    torch.testing.assert_close(half, blocks.mean((3, 5)))
    assert teacher.target(images(30, 20), (2 * side, side)).shape == (2, teacher.width, 2 * side, side)
    assert TeacherEncoder(teacher)(image).equal(own)


def test_gradients_reach_the_image_and_nothing_else() -> None:
    teacher, image = TrainedTeacher(classifier=make_classifier(), image_size=16).train(), images(16, 16).requires_grad_()
    teacher.features(image).patches.square().mean().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in teacher.parameters()) and not any(m.training for m in teacher.modules())
    assert not teacher.target(image, (2, 2)).requires_grad


@pytest.mark.parametrize('which', ['classifier', 'tokenizer'])
def test_weights_are_read_and_a_checkpoint_knows_them(which: str, tmp_path: Path) -> None:
    make: Any = {'classifier': make_classifier, 'tokenizer': make_tokenizer}[which]
    files = []
    for seed in (1, 2):
        trained = make(seed)
        prefix = '' if which == 'classifier' else 'tokenizer.'
        files.append(str(tmp_path / f'{seed}.safetensors'))
        save_file({prefix + name: value.contiguous() for name, value in trained.state_dict().items()}, files[-1])
    first, second = (TrainedTeacher(**{which: make(9)}, weights=file, image_size=32) for file in files)
    assert first.pretrained_files() == [Path(files[0])]
    first.load_pretrained()
    assert torch.equal(first.features(images(32, 32)).patches, _patches(make(1), images(32, 32)))
    encoder = TeacherEncoder(first)
    kept = model_state(ImageClassification(encoder, classes=5))
    assert [name for name in kept if not name.startswith('head.')] == ['backbone.teacher.digest']
    second.load_pretrained()
    with pytest.raises(UserError, match='belongs to another teacher'):
        ImageClassification(TeacherEncoder(second), classes=5).load_state_dict(kept, strict=False)


def _patches(model: Any, image: torch.Tensor) -> torch.Tensor:
    if isinstance(model, ImageClassification):
        return model.eval().backbone(image)
    patches: torch.Tensor = model.eval().encode(image).mean
    return patches


def test_what_is_no_network_for_images_is_refused() -> None:
    for given, message in (({}, 'a classifier or a tokenizer'), ({'classifier': make_task()}, 'is no classifier')):
        with pytest.raises(ConfigError, match=message):
            TrainedTeacher(**given)
    teacher = TrainedTeacher(classifier=make_classifier(), image_size=16)
    with pytest.raises(ConfigError, match="layers is 'penultimate'"):
        teacher.features(images(16, 16), 'penultimate')
    with pytest.raises(ConfigError, match='and was given images of 15 x 16'):
        teacher.features(images(15, 16))
    with pytest.raises(UserError, match='no weights for the teacher'):
        teacher.load_pretrained()
