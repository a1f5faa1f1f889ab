"""CONFIG against the run whose weights are loaded: a warning if its data or model differ from those of the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from vq.assembly.callbacks import settle_callbacks
from vq.assembly.compose import runner_config
from vq.assembly.same_run import Difference, completed, differing
from vq.core.config import PyConfig
from vq.core.errors import UserError, listing
from vq.core.trust import Untrusted
from vq.io import runs
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

logger = logging.getLogger('vq')

COMPARED = ('model', 'dataset')
SHOWN = 6


def tell_differences(options: Any, config: PyConfig, context: RunContext) -> None:
    """Warn if data, image size, classes or parts of CONFIG are not those of the run; results record the differences.

    Without CONFIG the command takes the config of the run, so there is nothing to compare.
    """
    if not options.config_given:
        return
    found = [str(one) for one in against_run(options, config)]
    context.meta['differs_from_run'] = found
    if found:
        logger.warning(
            'CONFIG differs from the config of the run whose weights are loaded (run -> CONFIG): %s. Leave CONFIG out to take '
            'that of the run.',
            listing(found, SHOWN),
        )


def against_run(options: Any, config: PyConfig) -> list[Difference]:
    """The differences; none if the weights belong to no run with a readable config."""
    name = [getattr(options, 'name', None), *options.load_model_from][-1]
    try:
        run = runs.find(name, getattr(options, 'work_dir', None) or runs.RUNS, trust=options.trust)
        if run.checkpoint is None or not Path(run.checkpoint).is_dir():
            return []
        before = PyConfig(run.config)
        settle_callbacks(before)
        old, new = (_compared(side) for side in (before, config))
    except (Untrusted, UserError, OSError, ValueError, KeyError):  # damaged weights are reported when they are loaded
        return []
    return [*differing(old, new, 'validator')]


def _compared(config: PyConfig) -> dict[str, Any]:
    found = completed(VQRunnerRegistry, runner_config(config, 'validator'), 'validator')
    return {name: found[name] for name in COMPARED if name in found}
