"""The facts about a classifier: its predictions on held-out images."""

from __future__ import annotations

import numpy as np
import torch

from vq.assembly.counting import count
from vq.report.facts import ClassifierFacts
from vq.report.figures import BATCH
from vq.report.images import Images
from vq.report.of_tokenizer import validations_of
from vq.report.opening import MEASURED, Opened, affordable
from vq.report.origin import seconds_of_training
from vq.teachers.classifier import ClassifierFeatures


def gather(opened: Opened) -> ClassifierFacts | None:
    """None, and a line on the page, if there are no held-out images with classes."""
    network: ClassifierFeatures = opened.model
    held_out = opened.images('validator', 10 * MEASURED)
    if held_out is None:
        return None
    if held_out.category is None:
        opened.leave_out('accuracy', 'the held-out images have no classes')
        return None
    classes = int(network.classifier.classes)  # type: ignore[arg-type]
    able = affordable(network, held_out.tensor[:1].to(opened.asked.device), opened.asked, opened.asked.images, len(held_out))
    held_out = held_out.first(able)
    logits = torch.cat([_logits(network, part.to(opened.asked.device)) for part in torch.split(held_out.tensor, BATCH)])
    category = np.asarray(held_out.category)
    named = logits.argmax(1).numpy()
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (category, named), 1)
    best = logits.topk(min(5, classes), 1).indices.numpy()
    wrong = np.flatnonzero(named != category)[: opened.asked.images]
    return ClassifierFacts(
        split=held_out.split,
        names=held_out.names,
        confusion=confusion,
        top5=float((best == category[:, None]).any(1).mean()),
        images=held_out.pixels[wrong],
        told=[(held_out.ids[row], held_out.name_of(row), _name(held_out, int(named[row]))) for row in wrong],
        parameters=count(network.classifier),
        train_images=int(opened.run.spec.trained_on.get('images') or 0),
        seconds=seconds_of_training(opened.origin.training),
        validations=validations_of(opened),
    )


def _logits(network: ClassifierFeatures, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor | None = network(images).logits
    assert logits is not None
    return logits.cpu()


def _name(images: Images, number: int) -> str:
    return images.names[number] if number < len(images.names) else str(number)


def sentence(facts: ClassifierFacts | None) -> str:
    """The result in a line, for a terminal."""
    if facts is None:
        return 'There are no held-out images with classes, so nothing was measured.'
    total, right = int(facts.confusion.sum()), int(np.trace(facts.confusion))
    return f'Accuracy {100 * right / max(total, 1):.1f} % on {total} images of {facts.split}.'
