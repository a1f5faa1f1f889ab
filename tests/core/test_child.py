"""A child that ends with its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from vq.core import child

pytestmark = pytest.mark.slow


def test_the_command_becomes_python_with_the_arguments():
    body = 'import json, os, sys; print(json.dumps([os.getpid(), sys.executable, sys.argv[1:], sys.path[0]]))'
    process = subprocess.Popen(child.command('-c', body, 'a b', '-x'), stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate()
    assert json.loads(said) == [process.pid, sys.executable, ['a b', '-x'], '']


@pytest.mark.skipif(sys.platform != 'linux', reason='children are told of their parent by Linux only')
def test_an_orphan_does_not_begin():
    words = child.command('-c', 'print("begun")')
    words[words.index(str(os.getpid()))] = '1'
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, '')
