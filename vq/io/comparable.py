"""Which results compare: figures of the same data, counts, networks and preprocessing are in one group, and the best is known
only where it is known which way is better. Works on the records of results files, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.core.reading import read_json

OF_FEATURES = r'(fid|sfid|inception_score|inception_score_std|kid|kid_std|precision|recall|density|coverage|cmmd)'
LOWER = r'(.*_)?(fid|sfid|kid|cmmd|l1|l2|mse)|lpips.*'
HIGHER = r'(.*_)?(inception_score|precision|recall|density|coverage|psnr|ssim|ssim_uniform)|(top|accuracy).*'
NO_FIGURES = ('seconds', 'skipped')

Conditions = dict[str, Any]  # what a figure depends on -> its value


def read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}', 'Give results.json of vq.val or vq.test, or fid.json.') from error
    if not isinstance(record, dict) or not isinstance(record.get('results'), dict):
        raise UserError(f'{path} holds no results', 'Give results.json of vq.val or vq.test, or fid.json of vq.tools.fid.')
    odd = next(_odd_parts(record), None)
    if odd is not None:
        raise UserError(
            f"{path} is damaged: '{odd}' is not what the commands write there", 'Measure again, or take another copy.'
        )
    return record


def _odd_parts(record: Mapping[str, Any]) -> Iterator[str]:
    """The names of parts whose type is another than in records that the commands write."""
    values = (str, int, float, bool, type(None))
    yield from (f'results.{name}' for name, value in record['results'].items() if not isinstance(value, values))
    if not isinstance(record.get('name', ''), str):
        yield 'name'
    if not isinstance(record.get('dataset') or {}, dict):
        yield 'dataset'
    metrics = record.get('metrics') or {}
    if not isinstance(metrics, dict):
        yield 'metrics'
        return
    for name, said in metrics.items():
        figures = said.get('figures', []) if isinstance(said, dict) else None
        sound = isinstance(figures, list) and all(isinstance(figure, str) for figure in figures)
        if not sound or not isinstance(said.get('reference') or {}, dict):
            yield f'metrics.{name}'


def labels_of(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """File -> the name of its run; the file itself if names repeat."""
    names = {file: str(record.get('name', file)) for file, record in records.items()}
    return {file: name if [*names.values()].count(name) == 1 else file for file, name in names.items()}


Tables = list[dict[str, dict[str, Any]]]  # groups of comparable records: label -> figures


def compare(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Tables, list[str]]]:
    """(title of a family of figures, its groups of comparable records, the differences between the groups)."""
    families: dict[str, dict[str, tuple[dict[str, Any], Conditions]]] = {}
    for label, record in records.items():
        for title, figures, conditions in families_of(record):
            families.setdefault(title, {})[label] = figures, conditions
    found = []
    for title, members in families.items():
        groups: list[tuple[Conditions, dict[str, dict[str, Any]]]] = []
        for label, (figures, conditions) in members.items():
            home = next((group for known, group in groups if known == conditions), None)
            if home is None:
                groups.append((conditions, {label: figures}))
            else:
                home[label] = figures
        reasons = [
            f'{next(iter(groups[0][1]))} and {next(iter(group))} do not compare: {difference(groups[0][0], conditions)}'
            for conditions, group in groups[1:]
        ]
        found.append((title, [group for _, group in groups], reasons))
    return found


def families_of(record: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], Conditions]]:
    """(title, figures, conditions) for each metric that describes its conditions, then for all other figures."""
    left = {name: value for name, value in record['results'].items() if value is not None and name not in NO_FIGURES}
    count = left.pop('samples', None)
    data = record.get('dataset') or {}
    shared = {'random weights': bool(record.get('random_weights'))}
    found = []
    for metric, said in (record.get('metrics') or {}).items():
        figures = figures_of(metric, said, left)
        if not figures or 'network' not in said:
            continue
        left = {name: value for name, value in left.items() if name not in figures}
        reference = said.get('reference') or {}
        conditions = {key: said.get(key) for key in ('network', 'preprocessing', 'precision', 'network_hash', 'count')}
        # the hash of statistics computed in this run depends on rounding (number of ranks): compare their images
        identity = 'fingerprint' if record.get('reference_is_images') else 'hash'
        conditions |= {f'reference {key}': reference.get(key) for key in (identity, 'count')}
        if not reference.get('hash') and not is_of_images(record):  # the reference is the dataset itself
            conditions['dataset fingerprint'] = data.get('fingerprint')
        elif not is_of_images(record):
            conditions |= {f'dataset {key}': data.get(key) for key in ('name', 'split', 'fingerprint')}
        conditions['image_size'] = said.get('image_size')
        found.append((metric, figures, {**conditions, **shared}))
    if left:
        conditions = {f'dataset {key}': data.get(key) for key in ('name', 'split', 'fingerprint')}
        found.append(('images and codes', left, {**conditions, 'samples': count, **shared}))
    return found


def is_of_images(record: Mapping[str, Any]) -> bool:
    """Whether the dataset itself was measured, not a model on this dataset: datasets of samples always differ."""
    return record.get('measures') == 'images'


def figures_of(metric: str, said: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The results that come from a metric of features: those it lists, or those with its name as prefix."""
    if 'figures' in said:
        return {name: results[name] for name in said['figures'] if name in results}
    own = {name: value for name, value in results.items() if re.fullmatch(rf'{re.escape(metric)}_{OF_FEATURES}', name)}
    return own or {name: value for name, value in results.items() if re.fullmatch(OF_FEATURES, name)}


def difference(a: Conditions, b: Conditions) -> str:
    return '; '.join(f'{key} is {a.get(key)} and {b.get(key)}' for key in {**a, **b} if a.get(key) != b.get(key))


def best(name: str, values: Mapping[str, Any]) -> set[str]:
    """Labels of the best value; none if the better direction is unknown, or fewer than two values are finite."""
    numbers = {
        label: float(value)
        for label, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    if len(numbers) < 2 or not (re.fullmatch(LOWER, name) or re.fullmatch(HIGHER, name)):
        return set()
    wanted = (min if re.fullmatch(LOWER, name) else max)(numbers.values())
    return {label for label, number in numbers.items() if number == wanted}
