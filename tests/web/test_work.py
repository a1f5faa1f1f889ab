"""What the worker makes of jobs, on small runs: drawings, reconstructions, comparisons, and their refusals."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import vq
from tests.sources import ROOT
from tests.web.support import png
from vq.core.errors import UserError
from vq.io.layouts import read_layouts
from vq.io.published import catalog
from vq.web import worker
from vq.web.comparing import compare
from vq.web.drawing import draw
from vq.web.reconstructing import differences, glow, reconstruct
from vq.web.survey import survey

SETTINGS = {'root': 'work_dirs', 'device': 'cpu'}
LAYOUT = {'boxes': [[2, 2, 14, 14], [16, 16, 30, 30]], 'categories': ['3', '7']}
BOXES = {'run': 'boxes', 'layout': [LAYOUT], 'count': 2, 'seed': 5, 'settings': {'steps': 4, 'guidance': 3}}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('among_page_runs')]


def tell(share, note='', preview=None):
    """Nobody listens."""


def pixels(url):
    assert url.startswith('data:image/png;base64,')
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(',')[2]))))


def encoded(data=None):
    return base64.b64encode(data or png()).decode()


def test_the_survey_says_what_each_run_can_do():
    found = {record['name']: record for record in survey({}, SETTINGS, tell)['runs']}
    assert {name: record['use'] for name, record in found.items()} == {
        'tok': ['reconstruct'],
        'kl': ['reconstruct'],
        'gen': ['generate'],
        'boxes': ['layout'],
    }
    boxes, gen = found['boxes'], found['gen']
    assert boxes['names'] == gen['names'] == [*'0123456789'] and boxes['kinds'] == ('layout',)
    sampler, steps, guidance = (boxes['settings'][name] for name in ('sampler', 'steps', 'guidance'))
    assert sampler[0] == 'DPMSolver' and 'DDIM' in sampler[1] and 'Refined' not in sampler[1]
    assert isinstance(steps[0], int) and guidance[0] == 2.0
    assert gen['completes'] and not boxes['completes'] and 'temperature' in gen['settings']
    assert json.dumps(found)


def test_a_run_with_code_of_its_own_is_not_opened(among_page_runs, tmp_path):
    """It is named, with the reason; nothing of it is imported."""
    shutil.copytree(among_page_runs / 'tok', tmp_path / 'tok')
    shutil.copytree(among_page_runs / 'kl', tmp_path / 'torn')
    (tmp_path / 'torn/checkpoints/iter_8/model.safetensors').write_bytes(b'')
    (tmp_path / 'torn/checkpoints/iter_4/model.safetensors').write_bytes(b'')
    checkpoint = tmp_path / 'tok/checkpoints/iter_8'
    config, marker = (json.loads((checkpoint / name).read_text()) for name in ('config.json', 'COMPLETE'))
    (checkpoint / 'config.json').write_text(json.dumps({**config, 'custom_imports': ['module_of_a_stranger']}))
    marker['files']['config.json'] = {'size': (checkpoint / 'config.json').stat().st_size}
    (checkpoint / 'COMPLETE').write_text(json.dumps(marker))
    settings = {**SETTINGS, 'root': str(tmp_path)}
    (record,) = survey({}, settings, tell)['runs']
    assert record['name'] == 'tok' and record['use'] == ['reconstruct'] and 'module_of_a_stranger' in record['error']
    assert 'imports no code' in record['hint'] and '--trust' in record['hint']
    said = []
    worker.work({'job': 1, 'kind': 'reconstruct', 'asked': {'run': 'tok', 'image': encoded()}}, settings, said.append, set())
    assert 'module_of_a_stranger' in said[-1]['error'] and said[-1]['hint'] == worker.NO_TRUST
    assert 'module_of_a_stranger' not in sys.modules


def test_a_layout_is_drawn_as_vq_sample_draws_its_file(tmp_path):
    """The same bytes as ``vq.load(...).sample`` with the layouts of the file; another layout gives another image."""
    told = []
    found = draw(BOXES, SETTINGS, lambda *words: told.append(words))
    (tmp_path / 'layout.json').write_text(json.dumps([LAYOUT]))
    layout = read_layouts(tmp_path / 'layout.json', [*'0123456789'], 10)
    wanted = vq.load('boxes').sample(layout=layout, count=2, seed=5, steps=4, guidance=3, to='numpy')
    assert [np.array_equal(pixels(url), image) for url, image in zip(found['images'], wanted, strict=True)] == [True, True]
    assert found['size'] == [32, 32]
    shares = [share for share, note, *_ in told if note == 'drawing']
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(set(shares)) == 5, 'a step each'
    assert pixels(told[-2][2]()).shape[0] >= 32, 'a preview'
    seen = vq.load('seg').detect(torch.from_numpy(wanted).permute(0, 3, 1, 2))
    assert found['segmenter'] == 'seg' and found['detected'] == seen and len(seen) == 2
    again = draw(BOXES, SETTINGS, tell)
    other = draw({**BOXES, 'layout': [{**LAYOUT, 'categories': ['1', '1']}]}, SETTINGS, tell)
    moved = draw({**BOXES, 'layout': [{**LAYOUT, 'boxes': [[10, 2, 22, 14], [2, 16, 16, 30]]}]}, SETTINGS, tell)
    assert again['images'] == found['images'] != other['images'] and moved['images'][0] not in (
        found['images'] + other['images']
    )
    assert draw({**BOXES, 'layout': [{'boxes': [], 'categories': []}]}, SETTINGS, tell)['images']


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'run': '../boxes'}, "NAME '../boxes' has the part '..'"),
        ({'run': 'none'}, "there is no run 'none'"),
        ({'run': 'tok'}, 'draws no images'),
        ({'count': 99}, 'count is 99'),
        ({'count': True}, 'count is True'),
        ({'seed': -1}, 'seed is -1'),
        ({'settings': {'steps': 10**9}}, 'steps is 1000000000'),
        ({'settings': {'steps': 2.5}}, 'steps is 2.5'),
        ({'settings': {'guidance': 1e30}}, r'guidance is 1e\+30'),
        ({'settings': {'sampler': 'Refined'}}, "no sampler 'Refined'"),
        ({'settings': {'temperature': 2}}, "no setting 'temperature'"),
        ({'layout': [{'boxes': [[1, 2, 3]], 'categories': [1]}]}, 'has the box'),
        ({'layout': [{'boxes': [[0, 0, 5, 5]], 'categories': [10]}]}, 'has no class 10'),
        ({'layout': [{'boxes': [[0, 0, 5, 5]], 'categories': ['cat']}]}, "has no class 'cat'"),
        ({'layout': [{'boxes': [[0, 0, 5, 5]] * 201, 'categories': ['1'] * 201}]}, 'at most 200 boxes'),
        ({'layout': 3}, 'one layout'),
        ({'layout': None, 'classes': ['3']}, 'has no classes'),
        ({'layout': None, 'text': 'x' * 1001}, 'the text is too long'),
        ({'half': encoded(b'no image')}, 'is not an image'),
        ({'half': encoded()}, 'draws no tokens'),
    ],
)
def test_drawings_that_cannot_be(change, said):
    with pytest.raises(UserError, match=said):
        draw({**BOXES, **change}, SETTINGS, tell)


def test_classes_are_drawn_and_halves_completed():
    asked = {'run': 'gen', 'classes': ['7', '1'], 'count': 3, 'seed': 1, 'settings': {'temperature': 0.9, 'greedy': False}}
    found, told = [], []
    found = draw(asked, SETTINGS, lambda *words: told.append(words[0]))['images']
    wanted = vq.load('gen').sample(['7', '1'], 3, 'numpy', seed=1, temperature=0.9)
    assert [np.array_equal(pixels(url), image) for url, image in zip(found, wanted, strict=True)] == [True] * 3
    assert told[-1] == 1.0 and len(told) > 2
    half = draw({**asked, 'half': encoded()}, SETTINGS, tell)
    completed = vq.load('gen').complete([Image.open(io.BytesIO(png()))] * 3, ['7', '1'], to='numpy', seed=1, temperature=0.9)
    assert [np.array_equal(pixels(url), image) for url, image in zip(half['images'], completed, strict=True)] == [True] * 3
    assert pixels(half['given']).shape == completed[0].shape


def test_a_cancelled_drawing_stops_between_two_steps():
    said, cancelled = [], set()

    def send(message):
        said.append(message)
        if (message.get('share') or 0) > 0.2:
            cancelled.add(9)

    worker.work({'job': 9, 'kind': 'draw', 'asked': {**BOXES, 'settings': {'steps': 20}}}, SETTINGS, send, cancelled)
    assert said[-1] == {'job': 9, 'cancelled': True} and len(said) < 12 and not cancelled


def test_errors_are_told_and_the_worker_goes_on(monkeypatch, capsys):
    said = []
    for asked in ({'run': 'none', 'count': 1, 'seed': 1}, {**BOXES, 'settings': 7}):
        worker.work({'job': 1, 'kind': 'draw', 'asked': asked}, SETTINGS, said.append, set())
    refused = next(message for message in said if 'error' in message)
    assert "no run 'none'" in refused['error'] and refused['hint'].startswith('Its runs: boxes')
    assert 'AttributeError' in said[-1]['error'] and 'terminal' in said[-1]['hint'] and 'Traceback' in capsys.readouterr().err


def test_a_reconstruction_with_its_tokens_and_bits():
    found = reconstruct({'run': 'tok', 'image': encoded(png(64, 64))}, SETTINGS, tell)
    tokenizer = vq.load('tok')
    given = tokenizer.prepare(Image.open(io.BytesIO(png(64, 64))))
    assert np.array_equal(pixels(found['made']), tokenizer.reconstruct(given, to='numpy')[0])
    assert found['numbers'] == tokenizer.tokenize(given)[0].tolist()
    count = len(found['numbers']) * len(found['numbers'][0])
    assert found['bits'] == count * np.log2(tokenizer.codebook_size) and found['size'] == [32, 32]
    assert found['share'] == pytest.approx(found['bits'] / (24 * 32 * 32))
    kl = reconstruct({'run': 'kl', 'image': encoded()}, SETTINGS, tell)
    assert 'tokens' not in kl and len(kl['latent']) == 3 and kl['made']
    for run, said in (('gen', 'is no tokenizer'), ('../tok', "has the part '..'")):
        with pytest.raises(UserError, match=said):
            reconstruct({'run': run, 'image': encoded()}, SETTINGS, tell)


def test_a_published_tokenizer_that_is_converted(tmp_path, monkeypatch):
    """It is named with its mark, and opened from the folder of pretrained files; others of the catalog are not there."""
    entry = catalog.find('taming-f16-1024')
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    place = tmp_path / entry.converted
    place.parent.mkdir(parents=True)
    with zipfile.ZipFile(ROOT / 'tests/fixtures/old/converted.zip') as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.converted'))
        place.write_bytes(archive.read(name))
    (record,) = (record for record in survey({}, SETTINGS, tell)['runs'] if record['published'])
    assert record['name'] == 'published:taming-f16-1024' and record['use'] == ['reconstruct'] and record['title'] == entry.name
    found = reconstruct({'run': record['name'], 'image': encoded()}, SETTINGS, tell)
    assert found['made'] and found['bits'] > 0
    with pytest.raises(UserError, match='no converted'):
        reconstruct({'run': 'published:llamagen-vq-16', 'image': encoded()}, SETTINGS, tell)


def test_figures_of_an_error():
    given, made = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert differences(given, given)['psnr'] is None
    made[:, 0, 0] = 51
    found = differences(given, made)
    assert found['largest'] == pytest.approx(0.2) and found['mean'] == pytest.approx(0.05)
    assert found['psnr'] == pytest.approx(-10 * np.log10(0.04 / 4))
    assert pixels(found['error'])[0, 0].tolist() == [255, 255, 230] and pixels(found['error'])[1, 1].tolist() == [0, 0, 0]
    assert glow(torch.tensor([[0.5]])).flatten().tolist() == [200, 60, 70]


def test_runs_side_by_side():
    found = compare({'runs': ['tok', 'kl']}, SETTINGS, tell)
    assert found['title'] == 'tok and kl' and found['links'][0][0] == 'configs'
    assert 'The same images through each tokenizer' in found['html'] and '<script' not in found['html']
    assert 'work_dirs' not in found['lead']
    for runs, said in (
        (['tok'], 'two runs or more'),
        (['tok', 'tok'], 'chosen twice'),
        (['tok', '../kl'], "has the part '..'"),
    ):
        with pytest.raises(UserError, match=said):
            compare({'runs': runs}, SETTINGS, tell)
