"""Strategy ``xla``: see vq/strategies/xla.py. Loaded by interface.py."""

_export_ = dict(type='XLAStrategy')
