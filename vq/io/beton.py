"""Files of FFCV are refused: their format needs FFCV itself. Imports the standard library only, for recipes."""

from __future__ import annotations

from pathlib import Path

from vq.core.errors import UserError

COMMAND = 'vq data pack --max-resolution 256 --output-folder O --train-folder T --validation-folder V'


def refuse_beton(path: str | Path) -> None:
    """An error for a file of FFCV, or a folder with some and no packed images; it says how to pack the images."""
    place = Path(path).expanduser()
    if place.suffix == '.beton':
        found: Path | None = place
    else:
        found = min(place.glob('*.beton'), default=None) if not any(place.glob('*/manifest.json')) else None
    if found is not None:
        raise UserError(
            f'{found} is a file of FFCV, which vq does not read',
            f'Pack the images that it was made of: {COMMAND}. Then give the options data=packed data_root=O.',
        )
