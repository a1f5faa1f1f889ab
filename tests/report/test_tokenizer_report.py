"""The report of a tokenizer has the figures of the facts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.report.support import Reader, needs_nothing_else
from vq.report.builder import build_page
from vq.report.facts import Facts, Origin, Samples, TokenizerFacts
from vq.report.tokenizer import ordered, perplexity, tile, token_picture


def results(psnr: float, dead: int) -> dict[str, float]:
    return {'fd': 700 - 20 * psnr, 'recognised': psnr / 32,
            'psnr': psnr, 'ssim': 0.95, 'l1': 0.02, 'mse': 0.001, 'codebook_usage': 1 - dead / 8, 'perplexity': 6.1,
            'dead_codes': dead, 'samples': 40}  # fmt: skip


@pytest.fixture
def facts() -> Facts:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    made = np.clip(images.astype(int) + rng.integers(-9, 10, images.shape), 0, 255).astype(np.uint8)
    journal = [
        {'step': step, 'kind': 'train', 'epoch': 0.1 * step, 'samples': step, 'l2': 1 / step, 'commitment': 0.1, 'total': 1.0,
         'lr': {'tokenizer': 1e-3}, 'gradient_norm': {'tokenizer': 1.0}, 'timing': {}}
        for step in (10, 20, 30)
    ]  # fmt: skip
    journal.append({'step': 30, 'kind': 'codebook', 'usage': 0.75, 'perplexity': 5.0, 'dead_codes': 2, 'tokens': 99})
    origin = Origin(
        name='demo',
        journal=journal,
        commands=[('python -m vq.train digits b.py', 9.4),
                  ('python -m vq.train demo a.py', 12.3), ('python -m vq.val demo a.py', 1.5)],
        config="trainer = dict(type='Trainer')",
        machine=[('cores', '2')],
    )  # fmt: skip
    return Facts(origin, TokenizerFacts(
        validations=[(10, results(20.1, 3)), (30, results(31.27, 1))],
        held_out={'validation': (results(31.27, 1), results(25.02, 0)), 'test': (results(30.99, 2), results(24.5, 0))},
        samples=Samples(['0', '0', '1', '1'], ['d/0', 'd/1', 'd/2', 'd/3'], images, made, images[::-1],
                        rng.integers(0, 8, (4, 2, 2))),
        counts={'train': [9, 8, 7, 6, 5, 4, 3, 0], 'validation': [1, 1, 1, 1, 1, 1, 1, 0]},
        codes=8,
        code_pictures=rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        baseline_pictures=rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        classifier={'top1': 0.994},
        train_images=300,
        parameters=12_345,
        image_size=8,
        bits=3.0,
        tokens=4,
        seconds=12.3,
    ))  # fmt: skip


def test_the_page_says_the_figures(facts):
    html = build_page(facts, 'title', 'lead').render()
    reader = Reader(html)
    assert needs_nothing_else(html)
    for text in ('31.3 dB', '+6.2 dB', '87.5 %', '7 of 8 codes', '12 bits', '30 steps', '30.99', '24.50', '0.00100',
                 '# 12.3 s', '12 s', '99.4%', '74.60', '97.7%', '97.7 %',
                 'python -m vq.val demo a.py', "type='Trainer'", 'cores: 2', '1 never used'):  # fmt: skip
        assert text in reader.text, text
    assert reader.ids == ['reconstructions', 'metrics', 'training', 'tokens', 'usage', 'codes', 'commands']
    assert 'Dry run' not in reader.text


def test_pictures_are_those_of_the_samples(facts):
    pictures = Reader(build_page(facts, '', '').render()).pictures
    found = facts.tokenizer.samples
    for index, (category, name) in enumerate(zip(found.categories, found.ids, strict=True)):
        np.testing.assert_array_equal(pictures[f'{category}, {name}: input'], found.images[index])
        np.testing.assert_array_equal(pictures[f'{category}, {name}: k-means on raw patches'], found.baseline[index])
        error = np.abs(found.images[index].astype(float) - found.reconstructions[index])
        np.testing.assert_array_equal(pictures[f'{category}, {name}: error times 4'], np.minimum(4 * error, 255))
        psnr = 20 * math.log10(255) - 10 * math.log10((error**2).mean())
        assert f'{category}, {name}: reconstruction, {psnr:.1f} dB' in pictures


def test_a_dry_run_says_so_first(facts):
    facts.origin.tiny = True
    assert 'All figures below are meaningless' in Reader(build_page(facts, '', '').render()).text


def test_perplexity():
    assert perplexity([5] * 64) == pytest.approx(64)
    assert perplexity([3, 0, 0]) == pytest.approx(1)
    assert perplexity([3, 1]) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_patches_are_sorted_by_brightness_and_unused_ones_come_last():
    patches = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (90, 10, 50, 0)])
    shown = ordered(patches, [1, 1, 1, 0])
    assert [int(patch[0, 1, 0]) for patch in shown[:3]] == [10, 50, 90]
    assert tuple(shown[3, 2, 2]) == (220, 60, 60)
    assert patches[3].max() == 0, 'the patches themselves stay as they are'
    assert [int(patch[0, 1, 0]) for patch in ordered(patches, None)] == [0, 10, 50, 90]


def test_sheets_hold_every_patch_once():
    patches = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 3), dtype=np.uint8)
    sheet = tile(patches)
    assert sheet.shape == (3 * 4 + 1, 3 * 4 + 1, 3)
    for index, patch in enumerate(patches):
        top, left = 1 + index // 3 * 4, 1 + index % 3 * 4
        np.testing.assert_array_equal(sheet[top : top + 3, left : left + 3], patch)


def test_token_maps_show_the_numbers_and_one_colour_per_code():
    tokens = np.array([[3, 200], [200, 3]])
    reader = token_picture(tokens, '7')
    numbers = [part.split('<')[0].split('>')[1] for part in reader.split('<text')[1:]]
    colours = [part.split('"')[0] for part in reader.split('fill="')[1:]]
    assert numbers == ['3', '200', '200', '3']
    assert colours[0] == colours[3] != colours[1] == colours[2]


@pytest.mark.parametrize('shape', [(16, 16), (30,), (2, 3, 4)], ids=['many cells', 'a line', 'several codebooks'])
def test_other_tokens_are_pictures_large_enough_to_see(shape):
    tokens = np.random.default_rng(0).integers(0, 99, shape)
    (shown,) = Reader(token_picture(tokens, '7')).pictures.values()
    assert shown.shape[0] >= 128
    if len(shape) == 2:  # every cell is one colour, and equal codes have equal colours
        cells = shown.reshape(16, shown.shape[0] // 16, 16, shown.shape[1] // 16, 3)
        assert (cells == cells[:, :1, :, :1]).all()
        colours = {(code, *colour) for code, colour in zip(tokens.ravel(), cells[:, 0, :, 0].reshape(-1, 3), strict=True)}
        assert len(colours) == len(np.unique(tokens))


def test_what_a_run_lacks_is_left_out_of_the_page_and_named(facts):
    """A continuous tokenizer without its data: no tokens, no codes, no baseline; the page says why."""
    found = facts.tokenizer
    found.held_out, found.samples, found.counts, found.codes = {}, None, {}, 0
    found.code_pictures = found.baseline_pictures = found.classifier = None
    facts.origin.left_out.append('held-out images: there is no folder photos & more')
    reader = Reader(build_page(facts, '', '').render())
    assert reader.ids == ['left_out', 'training', 'commands']
    assert 'there is no folder photos & more' in reader.text


def test_latents_have_one_scale_for_all_channels(facts):
    found = facts.tokenizer.samples
    found.tokens, found.latents = None, np.zeros((4, 2, 2, 2), np.float32)
    found.latents[:, 0], found.latents[:, 1] = -3, 5
    pictures = Reader(build_page(facts, '', '').render()).pictures
    assert (pictures['0: channel 0'] == 0).all() and (pictures['1: channel 1'] == 255).all()


def test_many_codes_are_a_line_and_few_of_them_pictures(facts):
    """A chart with a bar for each of 64,000 codes would be larger than the rest of the page."""
    rng = np.random.default_rng(0)
    facts.tokenizer.counts = {'validation': rng.integers(0, 9, 64_000).tolist()}
    facts.tokenizer.codes, facts.tokenizer.shown_codes = 64_000, list(range(8))
    html = build_page(facts, '', '').render()
    assert len(html) < 200_000 and 'The 8 codes used most' in html
