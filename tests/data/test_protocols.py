"""Named protocols: which layouts are theirs, in which order, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from vq.core.errors import UserError
from vq.data.datasets.coco_stuff import COCOStuffDataset
from vq.data.datasets.digits_canvas import DigitsCanvasDataset
from vq.data.datasets.selected import SubsetDataset
from vq.data.datasets.visual_genome import VisualGenomeDataset
from vq.data.decode import BadImage
from vq.data.protocols import PROTOCOLS, ids_digest, ids_text, layouts_at, places_of, protocol_named, sample_at
from vq.interfaces import Dataset


class Numbers(Dataset):
    name, split = 'numbers', 'train'


def coco(monkeypatch: pytest.MonkeyPatch, count: int, split: str = 'validation', **settings: Any) -> COCOStuffDataset:
    """A dataset of ``count`` samples, whose ids fall; there are no files."""
    monkeypatch.setattr(COCOStuffDataset, 'categories', None)
    monkeypatch.setattr(COCOStuffDataset, '__len__', lambda self: count)
    monkeypatch.setattr(COCOStuffDataset, 'id_of', lambda self, index: f'val2017/{count - index:012d}.jpg')
    return COCOStuffDataset('nowhere', split, **settings)


def test_published_protocols_take_what_the_filter_keeps_in_the_order_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coco(monkeypatch, 3097)
    found = places_of(whole, PROTOCOLS['coco-stuff-3097x5'])
    assert found == list(range(3096, -1, -1)) and PROTOCOLS['coco-stuff-3097x5'].samples == 5
    assert places_of(whole, PROTOCOLS['coco-stuff-2048x1']) == found[:2048]
    subset = SubsetDataset(whole, start=5, stop=2053)
    assert len(places_of(subset, PROTOCOLS['coco-stuff-2048x1'])) == 2048, 'a choice of ones own'
    assert places_of(whole, PROTOCOLS['coco-stuff-2048x1'], limit=3) == found[:3]
    for name, protocol in PROTOCOLS.items():
        assert name.endswith(f'-{protocol.layouts}x{protocol.samples}')


def test_another_number_is_refused_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    few = coco(monkeypatch, 300)
    with pytest.raises(UserError, match=r'has 300\nTake the complete files, or --protocol layouts-300x5; --limit 300 tries'):
        places_of(few, PROTOCOLS['coco-stuff-3097x5'])
    assert len(places_of(few, PROTOCOLS['coco-stuff-3097x5'], limit=4000)) == 300
    with pytest.raises(UserError, match=r'has 500\nTake --protocol layouts-500x2; --limit 500'):
        places_of(DigitsCanvasDataset('validation'), protocol_named('layouts-501x2'))


def test_another_filter_is_refused_with_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = PROTOCOLS['coco-stuff-3097x5']
    with pytest.raises(UserError, match=r'smallest 0.01 in place of 0.02, objects \(3, 9\) in place of \(3, 8\)'):
        places_of(coco(monkeypatch, 3097, smallest=0.01, objects=(3, 9)), protocol)
    with pytest.raises(UserError, match="split 'train' in place of 'validation'"):
        places_of(SubsetDataset(coco(monkeypatch, 3097, 'train')), protocol)
    with pytest.raises(UserError, match='of COCOStuffDataset, and this is digits_canvas'):
        places_of(DigitsCanvasDataset('validation'), protocol)
    monkeypatch.setattr(VisualGenomeDataset, '__len__', lambda self: 5097)
    with pytest.raises(UserError, match="split 'validation' in place of 'test'"):
        places_of(VisualGenomeDataset(split='validation'), PROTOCOLS['vg-5097x1'], limit=2)


def test_names() -> None:
    assert protocol_named('vg-5097x1').dataset == 'VisualGenomeDataset'
    small = protocol_named('layouts-20x2')
    assert (small.layouts, small.samples, small.dataset) == (20, 2, None)
    with pytest.raises(UserError, match=r"no protocol 'coco-stuff-3097'; did you mean 'coco-stuff-3097x5'\?"):
        protocol_named('coco-stuff-3097')
    with pytest.raises(UserError, match='layouts-NxK'):
        protocol_named('layouts-0x2')


def test_layouts_are_rows_and_their_ids_have_a_digest() -> None:
    dataset = DigitsCanvasDataset('validation')
    found = layouts_at(dataset, [4, 1], (32, 64))
    assert found.ids == [dataset.id_of(4), dataset.id_of(1)] and found.text is None
    for row, place in enumerate((4, 1)):
        boxes = torch.from_numpy(dataset.canvas(place).boxes) * torch.tensor([1, 0.5, 1, 0.5])
        torch.testing.assert_close(found.boxes.boxes[row][found.boxes.boxes_mask[row]], boxes.float())
    assert ids_text(['a', 'b']) == 'a\nb\n' and ids_digest(['a', 'b']) == hashlib.sha256(b'a\nb\n').hexdigest()
    subset = SubsetDataset(dataset, start=3)
    assert sample_at(subset, 1, (64, 64))['id'] == dataset.id_of(4)
    with pytest.raises(UserError, match=r'numbers \(train\) is a Numbers\n.*dataset of images'):
        sample_at(Numbers(), 0, (64, 64))
    texts = DigitsCanvasDataset('validation', text=True)
    assert layouts_at(texts, [1], (64, 64)).text == [texts.annotations_of(1)['text']]


def test_an_image_that_cannot_be_read_and_data_without_boxes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = DigitsCanvasDataset('validation')

    def broken(index: int) -> Any:
        raise BadImage('a.jpg', 'is empty (zero bytes)')

    monkeypatch.setattr(dataset, 'original', broken)
    with pytest.raises(UserError, match=r'digits_canvas \(validation\): a.jpg: is empty'):
        sample_at(dataset, 0, (64, 64))
    plain = DigitsCanvasDataset('validation')
    monkeypatch.setattr(plain, 'annotations_of', lambda index: {})
    with pytest.raises(UserError, match='has no boxes'):
        layouts_at(plain, [0], (64, 64))
