"""Strategy ``base``: see vq/strategies/base.py. Loaded by interface.py."""

_export_ = dict(type='BaseStrategy')
