"""The names of callbacks in configs, and the order in which they run. Imports no torch, so that composing a config does not.

A callback class declares its ``phase``. The table repeats the phases of the built-in classes (a test compares them), so that
composing a config imports only the classes of users.
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
DEFAULT_PHASE = 'own'  # of a class without a ``phase``

# type -> (name, phase)
BUILT_IN = {
    'TokensCallback': ('tokens', 'tokens'),
    'KMeansInitCallback': ('kmeans', 'kmeans'),
    'AnnealCallback': ('anneal', 'anneal'),
    'ReinitCallback': ('reinit', 'reinit'),
    'EMACallback': ('ema', 'ema'),
    'LogCallback': ('log', 'log'),
    'WatchCallback': ('watch', 'log'),
    'BackendsCallback': ('backends', 'backends'),
    'ProgressCallback': ('progress', 'progress'),
    'GitCallback': ('git', 'git'),
    'ImageGridCallback': ('pictures', 'pictures'),
    'GenerationsCallback': ('generations', 'pictures'),
    'ReconstructionsCallback': ('reconstructions', 'pictures'),
    'SamplesCallback': ('samples', 'pictures'),
    'TokenReportCallback': ('token_report', 'pictures'),
    'CodebookAlarmCallback': ('alarm', 'alarm'),
    'LayoutFilesCallback': ('layout_files', 'pictures'),
    'GateAlarmCallback': ('gates', 'alarm'),
    'PreemptionCallback': ('preemption', 'preemption'),
    'EvalCallback': ('evaluate', 'evaluate'),
    'ValidateCallback': ('validate', 'evaluate'),
    'CheckpointCallback': ('checkpoint', 'checkpoint'),
}

# former settings of callbacks that belong to the optimizer now -> hint
STEP_SETTINGS = ('clip', 'schedule', 'scale_lr', 'base_batch')
MOVED_SETTINGS = {
    **{key: f'Set {key} in the optimizer, which the trainer steps: .trainer.optimizers.NAME.{key}.' for key in STEP_SETTINGS},
    'optimizer': 'The trainer steps each optimizer: write the step settings there, e.g. .trainer.optimizers.NAME.clip.',
}

# type of a runner -> its default callbacks, which a config can change; other classes declare ``default_callbacks``
TRAINER_CALLBACKS: dict[str, dict[str, Any]] = {
    'log': {'type': 'LogCallback'},
    'backends': {'type': 'BackendsCallback'},
    'progress': {'type': 'ProgressCallback'},
    'git': {'type': 'GitCallback'},
    'preemption': {'type': 'PreemptionCallback'},
    'checkpoint': {'type': 'CheckpointCallback'},
}
RUNNERS: dict[str, dict[str, dict[str, Any]]] = {
    'Trainer': TRAINER_CALLBACKS,
    **{kind: {} for kind in ('Validator', 'ImagesValidator', 'Tokenizer', 'Sampler', 'StatisticsWriter', 'LatentStatistics')},
    'LatentWriter': {},
}


def name_of(kind: Any, taken: Container[str] = ()) -> str:
    """The default name of a part of this type: ``EMACallback`` -> ``ema``, or ``ema_2``, ..."""
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
