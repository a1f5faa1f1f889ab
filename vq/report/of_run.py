"""The report of any run: opens it, gathers the facts of its kind, and builds the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.interfaces import FeatureNetwork
from vq.io.pages.page import Page
from vq.io.runs import Run
from vq.loading import load_run
from vq.report import of_classifier, of_drawn, of_generator, of_tokenizer
from vq.report.builder import build_page
from vq.report.facts import Facts
from vq.report.opening import Asked, Opened, open_run
from vq.report.origin import origin_of, results_of
from vq.teachers.classifier import classifier_features


@dataclasses.dataclass
class Report:
    """A page that is not saved yet, its result in a line, and what it is about."""

    page: Page
    sentence: str
    run: Run
    facts: Facts


def report(name: str, asked: Asked) -> Report:
    run, model = open_run(name, asked, lambda run: open_model(run, asked))
    if run.spec.kind == 'segmenter':
        raise UserError(f'{run.weights} holds a segmenter, and there is no report of one', f'Measure it: vq val {name}')
    opened = Opened(run, model, origin_of(run), asked)
    if asked.classifier is not None and run.spec.kind != 'classifier':
        opened.network, opened.classifier = network_of(asked.classifier, asked)
    facts, sentence = Facts(opened.origin), ''
    if run.spec.kind == 'generator':
        facts.generator = (of_drawn if model.tokens is None else of_generator).gather(opened)
        sentence = of_generator.sentence(facts.generator)
    elif run.spec.kind == 'classifier':
        facts.classifier = of_classifier.gather(opened)
        sentence = of_classifier.sentence(facts.classifier)
    else:
        facts.tokenizer = of_tokenizer.gather(opened)
        sentence = of_tokenizer.sentence(facts.tokenizer)
    return Report(build_page(facts, f'{run.name}: {run.spec.kind}', lead_of(run)), sentence, run, facts)


def open_model(run: Run, asked: Asked) -> Any:
    """What ``vq.load`` gives; of a classifier its network with its logits."""
    if run.spec.kind == 'classifier':
        return classifier_features(run.weights, asked.trust).to(asked.device)
    return load_run(run, asked.device, asked.weights)


def network_of(name: str, asked: Asked) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The features of a classifier's run, and its accuracy on real images."""
    own = Path(asked.work_dir) / name
    place = own if own.is_dir() else name
    network = classifier_features(place, asked.trust).to(asked.device)
    run, _ = open_run(name, asked, lambda run: None)
    found = [record for label, record, _ in ([] if run.folder is None else results_of(run.folder)) if 'top1' in record]
    if not found:
        opened = Opened(run, network, origin_of(run), asked)
        facts = of_classifier.gather(opened)
        if facts is None:
            raise UserError(f'the classifier {name} has no held-out images with classes', 'Give another one, or none.')
        return network, {'top1': float(facts.confusion.trace() / max(facts.confusion.sum(), 1))}
    return network, dict(found[-1])


def lead_of(run: Run) -> str:
    """What the run is, in two sentences."""
    learned = run.spec.trained_on
    images = learned.get('images')
    on = f' Trained on {learned["dataset"]}' if learned.get('dataset') else ''
    many = f', {images:,} images of {learned.get("split")}' if on and isinstance(images, int) else ''
    model = str(run.model.get('type', 'model')).rpartition('.')[2]
    part = run.model.get('tokenizer')
    kind = str(part.get('type', '')).rpartition('.')[2] if isinstance(part, dict) else ''
    said = f' of a {kind}' if kind and run.spec.kind != 'generator' else ''
    return f'{model}{said}: {run.spec}.{on}{many}{"." if on else ""} The weights are {run.weights}.'


def place_of(run: Run) -> Path | None:
    """Where the report of a run is written; None if the weights are not those of a run's folder."""
    return None if run.folder is None else run.folder / 'report.html'
