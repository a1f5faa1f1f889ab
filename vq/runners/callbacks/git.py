"""The state of the code a run was started from: commit, branch, and uncommitted changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import vq
from vq.core import collectives
from vq.interfaces import Callback
from vq.io import atomic
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class GitCallback(Callback[TrainerLike]):
    """Writes ``git.txt`` into the run's folder. If the package has no repository, the file says that it is installed."""

    phase = 'git'

    MOST = 1_000_000  # characters of the diff that are kept

    def before_run(self) -> None:
        if collectives.is_main():
            atomic.write_text(self.runner.work_dir / 'git.txt', describe_repository(Path(vq.__file__).parent, self.MOST))


def describe_repository(folder: Path, most: int) -> str:
    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f'(git {arguments[0]} failed: {error})'
        return done.stdout if done.returncode == 0 else ''

    commit = git('rev-parse', 'HEAD').strip()
    if not commit:
        return f'vq {vq.__version__}, installed without a git repository\n'
    difference = git('diff', 'HEAD')
    cut = f'\n(cut: {len(difference)} characters in all)\n' if len(difference) > most else ''
    return (
        f'commit {commit}\nbranch {git("rev-parse", "--abbrev-ref", "HEAD")}status\n{git("status", "--porcelain")}\n'
        f'difference\n{difference[:most]}{cut}'
    )
