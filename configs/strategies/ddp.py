"""Strategy ``ddp``: see vq/strategies/ddp.py. Loaded by interface.py."""

_export_ = dict(type='DDPStrategy')
