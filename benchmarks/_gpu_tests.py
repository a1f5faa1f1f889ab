"""The tests that need a CUDA device, in a separate process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from _gpu_running import Record

ROOT = Path(__file__).parent.parent
MARK = 'pytest.mark.gpu'
LAST = 3  # lines to keep of a failure
PROCESSES = 4  # on a machine with a GPU: these tests are mostly limited by the host


def marked_files() -> list[str]:
    """Files with a marked test. Collecting all other files would take longer than these tests."""
    files = sorted((ROOT / 'tests').rglob('test_*.py'))
    return [str(path.relative_to(ROOT)) for path in files if any(MARK in line for line in path.read_text().splitlines())]


def run_tests(record: Record) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command = [sys.executable, '-m', 'pytest', '-m', 'gpu', '--tb=short', f'--junitxml={report}']
        if record.device.type == 'cuda' and importlib.util.find_spec('xdist') is not None:
            command += ['--numprocesses', str(min(PROCESSES, os.cpu_count() or 1))]
        # without the variables of an outer pytest
        environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST_')}
        done = subprocess.run([*command, *marked_files()], cwd=ROOT, env=environment, capture_output=True, text=True)
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        if not report.is_file():
            raise RuntimeError(f'pytest wrote no report: {said}')
        cases = list(ElementTree.parse(report).getroot().iter('testcase'))
    failed = {
        f'{case.get("classname")}.{case.get("name")}': (found.text or found.get('message') or '').strip()
        for case in cases
        for found in case
        if found.tag in ('failure', 'error')
    }
    skipped = sum(case.find('skipped') is not None for case in cases)
    passed = len(cases) - skipped - len(failed)
    record.keep('counts', {'passed': passed, 'failed': len(failed), 'skipped': skipped})
    record.keep('failures', {name: text.splitlines()[-LAST:] for name, text in failed.items()})
    record.row('passed', passed, 'tests')
    record.row('skipped', skipped, 'tests')
    if failed:
        name, text = next(iter(failed.items()))
        print('\n'.join([f'{name}:\n{text}' for name, text in failed.items()])[-6000:])
        raise AssertionError(f'{len(failed)} of {len(cases)} tests failed, the first {name}: {" ".join(text.split()[-20:])}')
    if done.returncode != 0:
        raise RuntimeError(f'pytest ended with code {done.returncode}: {said}')
    if record.device.type == 'cuda' and not passed:
        raise AssertionError('no test ran, and there is a device')
