"""Ten crops, against torchvision's and on images whose pixel values are their positions."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional

from vq.core.errors import ConfigError
from vq.data.crops import CROPS, check_views, view


@pytest.mark.parametrize(('height', 'width', 'size'), [(35, 35, 32), (281, 281, 256), (9, 12, 5), (8, 8, 8), (36, 33, 31)])
def test_order_and_places_are_torchvisions(height: int, width: int, size: int) -> None:
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    for name, theirs in zip(CROPS, functional.ten_crop(image, size), strict=True):
        ours = view(image, name, size)
        assert torch.equal(ours, theirs), name
        assert ours.is_contiguous()


def test_crops_by_hand() -> None:
    """Four corners and the centre, then the same of the mirror image: 5 x 6 pixels, crops of 2."""
    image = torch.arange(30).view(1, 1, 5, 6)
    first = [int(view(image, name, 2)[0, 0, 0, 0]) for name in CROPS]
    # the centre: top round(1.5) = 2, left 2; in the mirror image column c shows pixel 5 - c
    assert first == [0, 4, 18, 22, 2 * 6 + 2, 5, 1, 18 + 5, 18 + 1, 2 * 6 + 3]
    assert view(image, 'crop5', 2).flip(-1).equal(view(image, 'crop1', 2))
    assert view(image, 'center') is image and view(image, 'flip')[0, 0, 0].tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ('names', 'size'), [((), None), (('centre',), None), (('crop0',), None), (('center',), 8), (('crop0', 'center'), 8)]
)
def test_views_that_do_not_go_together_are_refused(names: tuple[str, ...], size: int | None) -> None:
    with pytest.raises(ConfigError, match='token variants are'):
        check_views(names, size)
    check_views(('center', 'flip'), None)
    check_views(('crop3', 'crop9'), 8)
