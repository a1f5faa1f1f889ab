"""What callbacks are called in configs, and the order in which they stand. Imports no torch, for configs are composed without.

A callback class declares its ``phase``. The table repeats what the built-in ones declare (a test compares), so that only
classes of users are imported to compose a config.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

# in this order; the optimizers step between 'anneal' and 'reinit'
PHASES = (
    'tokens',
    'kmeans',
    'anneal',
    'reinit',
    'ema',
    'log',
    'backends',
    'progress',
    'git',
    'pictures',
    'alarm',
    'preemption',
    'own',
    'evaluate',
    'checkpoint',
)
DEFAULT_PHASE = 'own'  # of a class that declares none

# type -> (name, phase)
BUILT_IN = {
    'TokensCallback': ('tokens', 'tokens'),
    'KMeansInitCallback': ('kmeans', 'kmeans'),
    'AnnealCallback': ('anneal', 'anneal'),
    'ReinitCallback': ('reinit', 'reinit'),
    'EMACallback': ('ema', 'ema'),
    'LogCallback': ('log', 'log'),
    'BackendsCallback': ('backends', 'backends'),
    'ProgressCallback': ('progress', 'progress'),
    'GitCallback': ('git', 'git'),
    'ImageGridCallback': ('pictures', 'pictures'),
    'GenerationsCallback': ('generations', 'pictures'),
    'ReconstructionsCallback': ('reconstructions', 'pictures'),
    'SamplesCallback': ('samples', 'pictures'),
    'TokenReportCallback': ('token_report', 'pictures'),
    'CodebookAlarmCallback': ('alarm', 'alarm'),
    'PreemptionCallback': ('preemption', 'preemption'),
    'EvalCallback': ('evaluate', 'evaluate'),
    'CheckpointCallback': ('checkpoint', 'checkpoint'),
}

# settings of the step that callbacks had once -> what to do about one
STEP_SETTINGS = ('clip', 'schedule', 'scale_lr', 'base_batch')
MOVED_SETTINGS = {
    **{key: f'The trainer steps: write {key} into the optimizer, .trainer.optimizers.NAME.{key}.' for key in STEP_SETTINGS},
    'optimizer': 'The trainer steps: settings of the step stand in the optimizer, e.g. .trainer.optimizers.NAME.clip.',
}

# type of a runner -> the callbacks it has unless its config says otherwise; a class says so in ``default_callbacks``
TRAINER_CALLBACKS: dict[str, dict[str, Any]] = {
    'log': {'type': 'LogCallback'},
    'progress': {'type': 'ProgressCallback'},
    'git': {'type': 'GitCallback'},
    'preemption': {'type': 'PreemptionCallback'},
    'checkpoint': {'type': 'CheckpointCallback'},
}
RUNNERS: dict[str, dict[str, dict[str, Any]]] = {
    'Trainer': TRAINER_CALLBACKS,
    **{kind: {} for kind in ('Validator', 'ImagesValidator', 'Tokenizer', 'Sampler', 'StatisticsWriter')},
}


def name_of(kind: Any, taken: Container[str] = ()) -> str:
    """What a part of this type is called where nobody gave it a name: ``EMACallback`` -> ``ema``, or ``ema_2``, ..."""
    word = (kind if isinstance(kind, str) else getattr(kind, '__name__', 'part')).rpartition('.')[2]
    name = BUILT_IN[word][0] if word in BUILT_IN else snake_case(word.removesuffix('Callback') or word)
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f'{name}_{number}'
    return unique


def snake_case(word: str) -> str:
    """``HTTPServer`` -> ``http_server``."""
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', word).lower()
