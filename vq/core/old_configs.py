"""Names that configs had in the toolkit this one re-implements, in commands that its document prints."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger('vq')

# below ``configs``; the document names the first one with weights that were trained with OpenCLIP ViT-bigG/14 as teacher
OLD = {
    'vqkd/8192_imagenet_ddp.py': 'vqkd/openclip_bigg14_8192_imagenet_ddp.py',
    'vqkd_clip_8192_dd3_imagenet_ddp.py': 'vqkd/clip_8192_imagenet_ddp.py',
}
_told: set[str] = set()


def renamed(path: Path, root: Path) -> Path | None:
    """The config in the folder ``root`` that had this name, or None. The first time a line of the log says so."""
    old = path.as_posix().removeprefix('configs/')
    if old not in OLD:
        return None
    if old not in _told:
        _told.add(old)
        logger.warning('configs/%s is called configs/%s now; the old name still works', old, OLD[old])
    return root / OLD[old]
