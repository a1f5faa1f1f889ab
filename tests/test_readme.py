"""Examples in README and docs work: every bash and python block is run, in order, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.snippets import ROOT, Reader, read_snippets
from vq.cli.commands import COMMANDS

DOCUMENTS = ['README.md', *sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'docs').rglob('*.md'))]
LINK = re.compile(r'\]\((?!https?://|#|mailto:)([^)#\s]+)')


@pytest.mark.slow
@pytest.mark.parametrize('document', DOCUMENTS)
def test_every_block_runs_as_it_stands(document: str, tmp_path: Path, warm_programs: Path) -> None:
    reader, run = Reader(tmp_path, warm_programs), 0
    for snippet in read_snippets(document):
        reader.run(snippet)
        run += snippet.is_run
    assert run, f'{document} shows nothing that can be run'


@pytest.mark.parametrize('document', [*DOCUMENTS, 'CONTRIBUTING.md', 'CHANGELOG.md', 'pretrained/README.md'])
def test_links_lead_somewhere(document: str) -> None:
    for target in LINK.findall((ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), f'{document} links to {target}, which does not exist'


def test_the_readme_shows_every_command_and_the_published_forms() -> None:
    text = (ROOT / 'README.md').read_text()
    missing = [name for name in COMMANDS if not re.search(rf'\bvq (--\S+ \d+ )?{name}\b', text)]
    assert not missing, f'README.md does not show {missing}'
    assert '`python -m vq.train`' in text and '`auto_torchrun -m vq.train`' in text


def test_the_readme_leads_to_every_document_and_shows_a_page_first() -> None:
    text = (ROOT / 'README.md').read_text()
    documents = [str(path.relative_to(ROOT)) for path in (ROOT / 'docs').iterdir() if path.suffix in ('.md', '.ipynb')]
    missing = [document for document in documents if f']({document})' not in text]
    assert not missing, f'README.md does not lead to {missing}'
    first = text.splitlines()[:15]
    assert '$ make demo' in '\n'.join(first) and any(line.startswith('![') for line in first)
    assert (ROOT / 'docs/report.png').stat().st_size < 200_000


def test_a_promise_that_is_broken_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself can fail: a block with a wrong value, and a command that ends with an error."""
    monkeypatch.setattr('tests.snippets.ROOT', tmp_path)
    (tmp_path / 'page.md').write_text('```python\n1 + 1  # -> 3\n```\n\n```bash\nfalse\ntrue\n```\n')
    for snippet in read_snippets('page.md'):
        with pytest.raises(AssertionError, match=r'page\.md:[26]'):
            Reader(tmp_path).run(snippet)
