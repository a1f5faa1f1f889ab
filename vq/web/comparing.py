"""Two or more runs side by side: the parts of the page that ``vq compare`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.report.comparison_page import build_page
from vq.report.of_runs import gather
from vq.report.opening import Asked
from vq.web.models import device_of
from vq.web.places import place_of
from vq.web.worker import Telling

MOST = 6  # runs
IMAGES = 12


def compare(asked: Mapping[str, Any], settings: Mapping[str, Any], tell: Telling) -> dict[str, Any]:
    names = asked.get('runs')
    if not isinstance(names, list) or not 2 <= len(names) <= MOST:
        raise UserError('a comparison needs two runs or more', f'Choose 2 to {MOST} of the list.')
    root = Path(settings['root'])
    places = {str(place_of(name, root)): str(name) for name in names}  # a path cannot mean a run of the same name elsewhere
    if len(places) < 2:
        raise UserError(f'{names[0]} is chosen twice', 'Choose another run to compare it with.')
    tell(None, 'reading the runs, drawing and measuring')
    found = gather([*places], Asked(images=IMAGES, device=device_of(settings), work_dir=root), {})
    found.runs = {places[place]: side for place, side in found.runs.items()}
    found.records = {places.get(place, place): record for place, record in found.records.items()}
    found.left_out = [_renamed(reason, places) for reason in found.left_out]
    page = build_page(found)
    sections = ''.join(page.parts)
    return {'title': page.title, 'lead': page.lead, 'html': sections, 'links': [list(link) for link in page.links]}


def _renamed(text: str, places: Mapping[str, str]) -> str:
    for place, name in places.items():
        text = text.replace(place, name)
    return text
