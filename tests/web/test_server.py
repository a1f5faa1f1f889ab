"""The server of the page: who may ask, what it takes, what it refuses, and that it does without torch."""

from __future__ import annotations

import base64
import http.client
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.sources import ROOT
from tests.web.support import ask, png, served
from vq.web.server import HOST, static_files


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A folder with one run of a few files, beside a picture that is none of its."""
    root = tmp_path_factory.mktemp('page') / 'work_dirs'
    (root / 'one/pictures').mkdir(parents=True)
    lines = [{'step': step, 'kind': 'train', 'l2': step / 10} for step in (1, 2)]
    lines += [{'step': step, 'kind': 'eval', 'psnr': step + 0.5} for step in (1, 2)]
    (root / 'one/log.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    (root / 'one/pictures/iter_2_generated.png').write_bytes(png())
    (root / 'one/secret.txt').write_text('of the run')
    (root.parent / 'outside.png').write_bytes(png())
    return root


@pytest.fixture(scope='module')
def site(root):
    with served(root) as site:
        yield site


def test_the_page_and_its_policy(site):
    status, content, headers = ask(site, '')
    assert status == 200 and b'role="tablist"' in content
    assert site.server_address[0] == HOST == '127.0.0.1', 'other machines could reach it'
    policy = headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy and 'http' not in policy
    assert headers['Referrer-Policy'] == 'no-referrer' and headers['X-Content-Type-Options'] == 'nosniff'
    assert len(site.token) >= 32


def test_nothing_is_fetched_from_elsewhere():
    files = static_files()
    assert {'page.html', 'page.css', 'page.js', 'base.css', 'layout.js'} <= set(files)
    for name, (_, content) in files.items():
        text = content.decode().replace('http://www.w3.org/2000/svg', '')
        assert not re.search(r'https?://|//cdn|@import|url\(', text), name
        assert not re.search(r'\son\w+=|style=', text) or not name.endswith('.html'), f'{name} has code or style in attributes'


@pytest.mark.parametrize('path', ['', 'page.js', 'api/state', 'api/runs', 'api/jobs/1', 'api/picture?run=one'])
@pytest.mark.parametrize('token', ['', 'wrong', 'é'.encode('latin-1').decode('latin-1')])
def test_without_the_token_there_is_nothing(site, path, token):
    status, content, _ = ask(site, path, token=token.encode('ascii', 'ignore').decode())
    assert status == 403 and 'Open the address that vq web printed' in content['hint']


def test_jobs_and_uploads_need_the_token_too(site):
    for path, body in (
        ('api/images', png()),
        ('api/jobs', {'kind': 'draw', 'asked': {'run': 'one'}}),
        ('api/jobs/1/cancel', {}),
    ):
        assert ask(site, path, body, token='wrong')[0] == 403
    _, content, _ = ask(site, '', headers={'Accept': 'text/html'}, token='<script>')
    assert b'Open the address' in content and b'<script>' not in content


@pytest.mark.parametrize('headers', [{'Host': 'evil.example'}, {'Host': '127.0.0.1:1'}, {'Origin': 'http://evil.example'}])
def test_other_sites_are_refused_even_with_the_token(site, headers):
    assert ask(site, 'api/state', headers=headers)[0] == 403
    assert ask(site, 'api/jobs', {'kind': 'draw', 'asked': {'run': 'one'}}, headers=headers)[0] == 403


def bomb() -> bytes:
    """A small file whose header promises 900 million pixels."""
    data = bytearray(png(1, 1))
    data[16:24] = struct.pack('>II', 30_000, 30_000)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)


def test_an_image_is_taken_and_what_is_none_or_too_large_is_not(site):
    status, content, _ = ask(site, 'api/images', png(40, 30))
    assert status == 200 and (content['width'], content['height']) == (40, 30)
    for body, said in (
        (png(4097, 2), '4097 x 2 pixels, and a side can have 4096'),
        (png(2, 4097), '2 x 4097'),
        (bomb(), '30000 x 30000 pixels, and a side can have 4096'),
        (b'not a picture', 'is not an image'),
        (b'\x89PNG\r\n\x1a\nbroken', 'not an image, or its header is damaged'),
        (b'', 'empty'),
    ):
        status, content, _ = ask(site, 'api/images', body)
        assert status == 400 and said in content['error'] and content['hint'], body[:20]
    status, content, _ = ask(site, 'api/images', b'\0' * 10_000_001)
    assert status == 413 and '10 MB are taken' in content['error']


def test_a_length_that_is_a_lie_reads_no_more_than_the_limit(site):
    connection = http.client.HTTPConnection(*site.server_address[:2], timeout=30)
    connection.putrequest('POST', f'/{site.token}/api/images')
    connection.putheader('Content-Length', '-5')
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()


@pytest.mark.parametrize(
    'name', ['../outside', '/etc', 'one/../../outside', 'one/..', '', 'two', 'one\0', 7, None, 'published:no']
)
def test_paths_outside_of_the_folder_of_runs_are_refused(site, name):
    for kind in ('draw', 'reconstruct'):
        status, content, _ = ask(site, 'api/jobs', {'kind': kind, 'asked': {'run': name}})
        assert status == 400 and content['error'] and content['hint']
    status, content, _ = ask(site, 'api/jobs', {'kind': 'compare', 'asked': {'runs': ['one', name]}})
    assert status == 400 and content['error']
    assert not [job for job in site.queue._jobs.values() if job.kind != 'survey'], 'it was given to the worker'


@pytest.mark.parametrize(
    'file', ['../outside.png', '../../outside.png', 'secret.txt', '/etc/passwd', 'pictures', 'no.png', '%00.png', '']
)
def test_only_pictures_of_the_run_are_shown(site, file):
    assert ask(site, 'api/picture?run=one&file=pictures/iter_2_generated.png')[1].startswith(b'\x89PNG')
    status, content, _ = ask(site, f'api/picture?run=one&file={file}')
    assert status == 400 and 'has no picture' in content['error']


def test_a_link_out_of_the_run_is_not_followed(site, root):
    (root / 'one/pictures/link.png').symlink_to(root.parent / 'outside.png')
    try:
        assert ask(site, 'api/picture?run=one&file=pictures/link.png')[0] == 400
    finally:
        (root / 'one/pictures/link.png').unlink()


@pytest.mark.parametrize(
    ('body', 'headers', 'status', 'said'),
    [
        (b'{"kind": "draw"}', {'Content-Type': 'text/plain'}, 415, 'in JSON'),
        (b'{"kind": ', {}, 400, 'no JSON'),
        (b'[]', {}, 400, 'no job of the kind None'),
        (b'{"kind": "survey", "asked": {}}', {}, 400, "kind 'survey'"),
        (b'{"kind": "draw", "asked": 3}', {}, 400, 'no job'),
        (b'[' * 100_000, {}, 400, 'nested'),
        (b' ' * 1_000_001, {}, 413, '1,000,000 are taken'),
        (b'{"kind": "reconstruct", "asked": {"run": "one", "image": "none"}}', {}, 400, 'Choose the file again'),
    ],
)
def test_requests_that_make_no_sense_get_a_message(site, body, headers, status, said):
    found, content, _ = ask(site, 'api/jobs', body, {'Content-Type': 'application/json', **headers})
    assert found == status and said in f'{content["error"]} {content["hint"]}'


def test_unknown_places_and_jobs(site):
    assert ask(site, 'none.html')[0] == 404 and ask(site, 'api/none', {})[0] == 404
    assert ask(site, '../pyproject.toml')[0] in (403, 404)
    assert 'too many arguments' in ask(site, f'api/run?{"&".join(f"a{n}=1" for n in range(30))}')[1]['error']
    for number in ('99', 'x', '9' * 30):
        status, content, _ = ask(site, f'api/jobs/{number}')
        assert status == 400 and 'there is no job' in content['error']


def test_a_job_gets_the_uploaded_image_and_tells_its_result(site):
    name = ask(site, 'api/images', png())[1]['image']
    number = ask(site, 'api/jobs', {'kind': 'reconstruct', 'asked': {'run': 'one', 'image': name}})[1]['job']
    while (told := ask(site, f'api/jobs/{number}')[1])['state'] in ('waiting', 'running'):
        pass
    assert told['state'] == 'done' and base64.b64decode(told['result']['asked']['image']) == png()


def test_runs_have_curves_figures_and_pictures(site):
    (row,) = ask(site, 'api/runs')[1]['runs']
    assert row['name'] == 'one' and row['best'] == {'name': 'psnr', 'value': '2.5', 'step': 2}
    found = ask(site, 'api/run?run=one')[1]
    assert found['figures'] == [['psnr', '2.5']] and found['at'] == 2
    assert 'Training losses' in found['curves'] and 'psnr, held out' in found['curves'] and 'style=' not in found['curves']
    assert found['pictures'] == [{'file': 'pictures/iter_2_generated.png', 'title': 'iter 2 generated'}]
    assert ask(site, 'api/run?run=../one')[0] == 400


@pytest.mark.slow
def test_the_server_does_without_torch(root: Path):
    code = (
        'import sys, pathlib; from tests.web.support import *; root = pathlib.Path(sys.argv[1])\n'
        'import vq.cli.web\n'
        'with served(root) as site:\n'
        '    for path in ("", "api/state", "api/runs", "api/run?run=one"): assert ask(site, path)[0] == 200, path\n'
        '    assert ask(site, "api/images", png())[0] == 200\n'
        'print("torch" in sys.modules)'
    )
    ran = subprocess.run([sys.executable, '-c', code, str(root)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == 'False', ran.stderr
