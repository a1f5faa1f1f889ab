"""``tools/prepare_checkpoints.py``: files are fetched once and always verified; one failure does not stop the others."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from tests.io.serving import FileServer, closed_port, serving, stay_on_this_machine
from tests.io.test_published import small_beit2
from tests.published import read_golden
from vq.cli import convert, prepare
from vq.core.errors import UserError
from vq.io import download, pretrained
from vq.io.published import catalog
from vq.io.published.catalog import CATALOG, Published, RemoteFile

ROOT = Path(__file__).parents[2]
FIRST, SECOND, MODEL = (random.Random(seed).randbytes(50_000) for seed in range(3))

Outcome = tuple[int, str, str]  # exit code, stdout, stderr


def digest_of(data: bytes) -> str:
    return f'sha256:{hashlib.sha256(data).hexdigest()}'


def remote(name: str, digest: str | None, **more: Any) -> RemoteFile:
    return RemoteFile(f'https://example.org/files/{name}?dl=1', f'some/{name}', digest, 'https://example.org', **more)


ENTRIES = (
    Published('first', 'one file', (remote('first.pth', digest_of(FIRST), size=len(FIRST)),), aliases=('eins',)),
    Published('second', 'no digest', (remote('second.pth', None),)),
    Published('both', 'two files', (remote('first.pth', digest_of(FIRST)), remote('second.pth', None))),
    Published('model', 'a tokenizer', (remote('model.ckpt', digest_of(MODEL)),), kind='taming', options={'beta': 1.0}),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_on_this_machine(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('VQ_PRETRAINED', raising=False)
    monkeypatch.setattr(download, 'LONGEST_PAUSE', 0.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(catalog, 'CATALOG', ENTRIES)
    with serving() as server:
        for name, data in {'first.pth': FIRST, 'second.pth': SECOND, 'model.ckpt': MODEL}.items():
            server.files[f'/copy/files/{name}?dl=1'] = data
        yield server


@pytest.fixture
def command(server: FileServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = prepare.main(['--mirror', f'{server.address}/copy', *arguments])
        return code, *capsys.readouterr()

    return run


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


# fetching


def test_fetched_once_and_checked_afterwards(command, server):
    code, out, err = command('first')
    assert (code, err) == (0, '') and 'first: pretrained/some/first.pth fetched' in out
    assert Path('pretrained/some/first.pth').read_bytes() == FIRST
    code, out, _ = command('eins', 'first')
    assert code == 0 and out.count('is present, checked') == 1 and len(server.requests) == 1
    assert command('first', '--force')[0] == 0 and len(server.requests) == 2


def test_the_folder_is_chosen_by_the_environment_or_the_option(command, monkeypatch, tmp_path):
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path / 'a'))
    assert command('first')[0] == command('first', '--root', 'b')[0] == 0
    assert (tmp_path / 'a/some/first.pth').is_file() and (tmp_path / 'b/some/first.pth').is_file()


def test_a_digest_that_nobody_publishes_is_recorded_and_said(command, server):
    _, out, _ = command('second', 'first')
    assert f'no digest is published for some/second.pth; recorded {digest_of(SECOND)}' in out
    assert 'published for some/first.pth' not in out
    recorded = json.loads(Path('pretrained/digests.json').read_text())
    assert {path: f'sha256:{entry["sha256"]}' for path, entry in recorded.items()} == {
        'some/first.pth': digest_of(FIRST),
        'some/second.pth': digest_of(SECOND),
    }
    assert recorded['some/second.pth']['url'] == f'{server.address}/copy/files/second.pth?dl=1'
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', recorded['some/second.pth']['date'])
    _, out, _ = command('second')
    assert 'is present, checked' in out and 'no digest' not in out


@pytest.mark.parametrize('name', ['first', 'second'])
def test_a_file_that_changed_is_an_error(command, name):
    """Checked against the published digest, or against the recorded digest if none is published."""
    command(name)
    file = Path(f'pretrained/some/{name}.pth')
    file.write_bytes(file.read_bytes()[:-1] + b'?')
    code, out, err = command(name)
    assert code == 1 and 'checked' not in out
    assert ('published' if name == 'first' else 'what digests.json recorded on') in err and '--force' in last_line(err)
    assert command(name, '--force')[0] == 0 and command(name)[0] == 0


def test_a_publisher_that_sends_another_file_than_the_first_time(command, server):
    command('second')
    server.files['/copy/files/second.pth?dl=1'] = FIRST
    code, _, err = command('second', '--force')
    assert code == 1 and 'what digests.json recorded on' in err and 'second.pth.bad' in err
    assert Path('pretrained/some/second.pth').read_bytes() == SECOND, 'the old file stays'


def test_a_file_put_there_by_hand_counts(command, server):
    Path('pretrained/some').mkdir(parents=True)
    Path('pretrained/some/second.pth').write_bytes(SECOND)
    code, out, _ = command('second')
    assert code == 0 and 'recorded' in out and not server.requests
    assert json.loads(Path('pretrained/digests.json').read_text())['some/second.pth']['url'] == 'put there by hand'


def test_an_unreadable_record_is_said(command):
    Path('pretrained').mkdir()
    Path('pretrained/digests.json').write_text('{')
    code, _, err = command('first')
    assert code == 2 and 'digests.json cannot be read' in err and 'delete it' in last_line(err)


def test_one_that_fails_does_not_stop_the_next(command, server):
    del server.files['/copy/files/first.pth?dl=1']
    code, out, err = command('first', 'second')
    assert code == 1 and Path('pretrained/some/second.pth').read_bytes() == SECOND
    assert 'error: first: ' in err and 'status 404' in err and 'second.pth fetched' in out
    assert 'https://example.org/files/first.pth?dl=1' in last_line(err), 'the advice names the public address'
    assert str(Path('pretrained/some/first.pth').absolute()) in last_line(err)


def test_a_broken_connection_goes_on_with_the_next_call(command, server):
    server.cuts = [20_000] + [0] * 10
    assert command('first')[0] == 1
    server.cuts.clear()
    assert command('--list')[1].splitlines()[1].split()[:5] == ['first,', 'eins', '50.0', 'kB', 'begun']
    server.requests.clear()
    assert command('first')[0] == 0 and server.requests == [('/copy/files/first.pth?dl=1', 'bytes=20000-')]


def test_an_interrupt_says_that_nothing_is_lost(command, monkeypatch, capsys):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, 'obtain', stop)
    with pytest.raises(SystemExit) as caught:
        command('first')
    assert caught.value.code == 1 and 'goes on where it stopped' in last_line(capsys.readouterr().err)


def test_plain_lines_in_a_log(command, server, monkeypatch):
    from vq.runners.progress import ProgressBar

    monkeypatch.setattr(ProgressBar, 'LINE_SECONDS', -1.0)
    server.files['/copy/files/second.pth?dl=1'] = bytes(2_500_000)
    _, _, err = command('second')
    assert [line.split(' ', 2)[2].split(', ')[0] for line in err.splitlines()] == [
        f'fetching second.pth: {done} of 3 MB' for done in (1, 2)
    ]


def test_the_bar_follows_a_fetch_that_starts_again():
    with prepare.Bar('w.pth') as shown:
        for done in (0, 400_000, 1_200_000, 3_000_000, 500_000):
            shown.show(done, 3_000_001)
        assert (shown.bar.done, shown.bar.total) == (0, 4)


# what an installed package brings


def package_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> RemoteFile:
    (tmp_path / 'site' / 'vq_test_bundle' / 'weights').mkdir(parents=True)
    (tmp_path / 'site' / 'vq_test_bundle' / '__init__.py').write_text('raise ImportError("it is not to be imported")')
    (tmp_path / 'site' / 'vq_test_bundle' / 'weights' / 'first.pth').write_bytes(data)
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    file = remote('first.pth', digest_of(FIRST), bundled='vq_test_bundle/weights/first.pth')
    monkeypatch.setattr(catalog, 'CATALOG', (Published('first', 'one file', (file,)),))
    return file


def test_without_a_network_a_bundled_file_is_copied_and_said(tmp_path, monkeypatch, capsys):
    package_with(tmp_path, monkeypatch, FIRST)
    assert prepare.main(['first', '--mirror', f'http://127.0.0.1:{closed_port()}']) == 0
    out = capsys.readouterr().out
    assert 'no connection' in out and 'from the installed package vq_test_bundle/weights/first.pth' in out
    assert Path('pretrained/some/first.pth').read_bytes() == FIRST
    assert 'vq_test_bundle' in json.loads(Path('pretrained/digests.json').read_text())['some/first.pth']['url']


def test_another_version_of_the_package_is_not_used(tmp_path, monkeypatch, capsys):
    package_with(tmp_path, monkeypatch, SECOND)
    assert prepare.main(['first', '--mirror', f'http://127.0.0.1:{closed_port()}']) == 1
    assert 'no connection' in capsys.readouterr().err and not Path('pretrained/some/first.pth').exists()


def test_the_lpips_package_brings_what_the_catalog_says():
    if importlib.util.find_spec('lpips') is None:
        pytest.skip('the package lpips is not installed')
    for file in catalog.find('lpips').files:
        place = pretrained._bundled(file)
        assert place is not None and place.stat().st_size == file.size
        assert digest_of(place.read_bytes()) == file.digest


# converting


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls = []

    def convert_file(kind, file, options, output):
        calls.append((kind, str(file), dict(options), str(output)))
        Path(output).write_text('ours')
        return [('codes', '16 of 4 channels')]

    monkeypatch.setattr(convert, 'convert_file', convert_file)
    return calls


def test_tokenizers_are_converted_once(command, conversions):
    wanted = ('taming', 'pretrained/some/model.ckpt', {'beta': 1.0}, 'pretrained/some/model.ckpt.converted')
    code, out, _ = command('model', 'first')
    assert code == 0 and conversions == [wanted] and 'model: codes: 16 of 4 channels' in out
    command('model')
    assert conversions == [wanted]
    command('model', '--force')
    assert conversions == [wanted] * 2


def test_no_convert(command, conversions):
    assert command('model', '--no-convert')[0] == 0 and not conversions
    assert 'present, not converted' in command('--list', 'model')[1]
    command('model')
    assert len(conversions) == 1 and re.search(r'model +unknown +present +a tok', command('--list', 'model')[1])


def test_a_group_converts_each_of_its_tokenizers(command, server, conversions, monkeypatch):
    """Those whose file is new, by the options of their own entries."""
    both = (remote('model.ckpt', None), remote('first.pth', None))
    entries = [Published(f'own-{number}', 'one', (file,), 'taming', {'beta': number}) for number, file in enumerate(both)]
    monkeypatch.setattr(catalog, 'CATALOG', (*entries, Published('group', 'both', both)))
    assert command('own-1')[0] == 0
    files = [f'pretrained/{file.path}' for file in both]
    own = [('taming', file, {'beta': number}, f'{file}.converted') for number, file in enumerate(files)]
    assert conversions == own[1:]
    assert '1 of 2 files' in command('--list', 'group')[1]
    assert command('group', '--no-convert')[0] == 0 and 'present, not converted' in command('--list', 'group')[1]
    code, out, _ = command('group')
    assert code == 0 and conversions == own[::-1] and 'own-1: pretrained/some/first.pth.converted is present' in out
    assert command('group', '--force')[0] == 0 and conversions == [*own[::-1], *own]


def test_a_conversion_that_fails_leaves_the_download(command, monkeypatch):
    """The real converter on a file that is not a checkpoint."""
    code, _, err = command('model', 'first')
    assert code != 0 and 'error: model: ' in err
    assert Path('pretrained/some/model.ckpt').read_bytes() == MODEL and Path('pretrained/some/first.pth').is_file()
    assert not Path('pretrained/some/model.ckpt.converted').exists()


def test_from_the_network_to_vq_load(capsys):
    """A checkpoint is served, fetched, converted and loaded by its catalog name, with the peer's tokens and pixels."""
    import vq

    golden = read_golden('taming_vqmodel_a')
    checkpoint = io.BytesIO()
    torch.save({'state_dict': golden.state, 'epoch': 3}, checkpoint)
    published = urlsplit(catalog.find('taming-f16-1024').files[0].url)
    with serving() as server:
        server.files[f'{published.path}?{published.query}'] = checkpoint.getvalue()
        code = prepare.main(['taming-f16-1024', '--mirror', server.address])
    assert code == 0, capsys.readouterr().err
    loaded = vq.load('taming-f16-1024')
    assert torch.equal(loaded.tokenize(golden['in/image']), golden['out/indices'].long())
    pixels = loaded.model.detokenize(golden['out/indices'].long())
    torch.testing.assert_close(pixels, golden['out/decoded_from_indices'], rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_beit2_from_the_network_to_tokens(monkeypatch, capsys):
    """The group fetches three files and converts each. Images of every form give tokens, which are no pixels."""
    import vq

    undigested = {}
    for entry in CATALOG:
        files = tuple(dataclasses.replace(file, digest=None, digest_source=None) for file in entry.files)
        undigested[entry.name] = dataclasses.replace(entry, files=files)
    monkeypatch.setattr(catalog, 'CATALOG', tuple(undigested.values()))
    names = ('beit2-vqkd-clip', 'beit2-vqkd-clip-3', 'beit2-vqkd-dino')
    with serving() as server:
        for seed, file in enumerate(undigested['beitv2'].files):
            buffer = io.BytesIO()
            torch.save({'model': small_beit2(seed=seed)}, buffer)
            server.files[urlsplit(file.url).path] = buffer.getvalue()
        code = prepare.main(['beitv2', '--mirror', server.address])
    said, errors = capsys.readouterr()
    assert code == 0, errors
    assert all(f'{name}: tokens: 2 x 2 per image of 32 pixels' in said for name in names)
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    found = [vq.load(name).tokenize(image) for name in names]
    assert found[0].shape == (1, 2, 2) and not torch.equal(found[0], found[1])
    assert torch.equal(vq.load(names[0]).tokenize(image.float() / 127.5 - 1, value_range='-1..1'), found[0])
    with pytest.raises(UserError, match='makes no pixels') as caught:
        vq.load(names[0]).detokenize(found[0])
    assert 'configs/decoder/vqgan.py' in caught.value.hint


def test_convert_file_is_called_as_it_is_defined():
    assert list(inspect.signature(convert.convert_file).parameters) == ['kind', 'file', 'options', 'output']


# the list, and bad usage


def test_the_list(command, server):
    command('second')
    lines = command()[1].splitlines()
    assert [line.split('  ')[0].strip() for line in lines[1:-1]] == ['first, eins', 'second', 'both', 'model']
    assert '50.0 kB' in lines[1] and 'missing' in lines[1] and 'one file' in lines[1]
    assert 'unknown' in lines[2] and 'present' in lines[2]
    assert '1 of 2 files' in lines[3] and lines[-1] == 'folder: pretrained'
    assert command('--list')[1].splitlines() == lines
    assert len(server.requests) == 1


def test_unknown_names_are_refused_before_anything_is_fetched(command, server):
    code, _, err = command('first', 'secnd')
    assert code == 2 and "did you mean 'second'?" in err and 'There is: first, eins, second' in last_line(err)
    assert not server.requests


@pytest.mark.parametrize('address', ['nowhere', 'ftp://example.org', 'https://a:b@example.org'])
def test_a_bad_mirror_is_refused(server, address, capsys):
    assert prepare.main(['first', '--mirror', address]) == 2
    assert not Path('pretrained').exists() and 'a:b' not in capsys.readouterr().err


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **variables}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_the_tool_lists_without_torch(tmp_path):
    folder = tmp_path / 'elsewhere'
    done = run('-X', 'importtime', str(ROOT / 'tools/prepare_checkpoints.py'), '--list', VQ_PRETRAINED=str(folder))
    assert done.returncode == 0, done.stderr
    assert all(entry.name in done.stdout for entry in CATALOG) and f'folder: {folder}' in done.stdout
    modules = {line.rpartition('|')[2].strip().partition('.')[0] for line in done.stderr.splitlines()}
    assert 'vq' in modules and not modules & {'torch', 'todd', 'numpy'}
    assert not folder.exists()


@pytest.mark.slow
def test_the_tool_answers_help_and_bad_usage():
    tool = str(ROOT / 'tools/prepare_checkpoints.py')
    done = run(tool, '--help')
    assert done.returncode == 0 and '--no-convert' in done.stdout
    assert run(tool, '--lits').returncode == 2
    done = run(tool, 'taming-f16-1025')
    assert done.returncode == 2 and "did you mean 'taming-f16-1024'?" in done.stderr


# the catalog


def test_names_are_unique():
    names = [name for entry in CATALOG for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r'[a-z0-9]+(-[a-z0-9]+)*', name) for name in names)
    assert all(catalog.find(name.replace('-', '_')) is catalog.find(name) is not None for name in names)
    assert catalog.find('nothing') is None


def test_a_path_belongs_to_one_file():
    by_path = {}
    for entry in CATALOG:
        assert entry.files
        for file in entry.files:
            assert by_path.setdefault(file.path, file) == file
    urls = [file.url for file in by_path.values()]
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize('file', {file.path: file for entry in CATALOG for file in entry.files}.values(), ids=lambda f: f.path)
def test_a_catalog_file_is_sane(file, tmp_path):
    assert file.url.startswith('https://') and file.source.startswith('https://')
    download.check_address(file.url)
    download.check_inside(tmp_path / file.path, tmp_path)
    assert not Path(file.path).is_absolute() and '..' not in file.path
    assert file.size is None or file.size > 0
    if file.digest is not None:
        download.Digest.parse(file.digest)
        named = re.search(r'-([0-9a-f]{8})\.pth$', urlsplit(file.url).path)
        if named:
            assert file.digest.startswith(f'sha256:{named[1]}'), 'the name carries the first digits'
    assert file.digest_source is None or file.digest is not None


def test_kinds_are_those_of_the_converter():
    assert {entry.kind for entry in CATALOG if entry.kind} <= set(convert.KINDS)
    assert {entry.name for entry in CATALOG if entry.kind} == {
        'taming-f16-1024',
        'taming-f16-16384',
        'taming-gumbel-f8',
        'llamagen-vq-16',
        'llamagen-vq-8',
        'var-ms-4096',
        'mar-kl-16',
        'mar-base',
        'mar-large',
        'mar-huge',
        'rae-dinov2-b',
        'rae-dinov2-b-xl',
        'beit2-vqkd-clip',
        'beit2-vqkd-clip-3',
        'beit2-vqkd-dino',
    }
    assert all(len(entry.files) == 1 for entry in CATALOG if entry.kind)


def test_the_page_lists_every_entry():
    lines = (ROOT / 'docs/pretrained.md').read_text().splitlines()
    rows = {
        line.split('`')[1]: line for line in reversed(lines) if line[:3] == '| `'
    }  # kinds of files follow, some of one name
    for entry in CATALOG:
        assert all(f'`{name}`' in rows[entry.name] for name in entry.aliases)
        if entry.name == 'torchvision':
            continue
        assert all(f'`{file.path}`' in rows[entry.name] for file in entry.files)
        unknown = entry.files[0].digest is None
        assert ('recorded at the first download' in rows[entry.name]) == unknown


# a missing file


def test_a_missing_file_names_the_smallest_entry_that_brings_it(tmp_path, monkeypatch):
    for path in ('torchvision/vgg16-397923af.pth', tmp_path / 'pretrained/torchvision/vgg16-397923af.pth'):
        with pytest.raises(UserError) as caught:
            pretrained.pretrained_file(path)
        assert caught.value.hint == 'Fetch it: python -m vq.tools.prepare_checkpoints torchvision-vgg16'
    with pytest.raises(UserError, match='is missing') as caught:
        pretrained.pretrained_file('mine.pth')
    assert 'prepare_checkpoints' not in caught.value.hint
    Path('pretrained').mkdir()
    Path('pretrained/mine.pth').write_bytes(b'x')
    assert pretrained.pretrained_file('mine.pth') == Path('pretrained/mine.pth')


def test_fields_of_the_catalog_keep_their_order():
    """Other code passes them by position."""
    assert [field.name for field in dataclasses.fields(RemoteFile)][:4] == ['url', 'path', 'digest', 'source']
    assert [field.name for field in dataclasses.fields(Published)][:5] == ['name', 'about', 'files', 'kind', 'options']
