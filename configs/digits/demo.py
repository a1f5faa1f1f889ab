"""What ``make demo`` trains: vq_ema.py on the CPU, looked at more often.

    python -m vq.demo

HEADER
"""

from vq.core import PyConfig

_export_ = PyConfig.load('vq_ema.py')
if _export_.trainer.strategy.type == 'BaseStrategy':
    _export_.trainer.strategy.device = 'cpu'

intervals = dict(LogCallback=20, CodebookAlarmCallback=100, CheckpointCallback=100)
for callback in _export_.trainer.callbacks:
    if callback.type in intervals:
        callback.interval = intervals[callback.type]
    callback.pop('keep_last', None)  # every checkpoint is validated
