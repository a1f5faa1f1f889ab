"""Strategy ``fsdp``: see vq/strategies/fsdp.py. Loaded by interface.py."""

_export_ = dict(type='FSDPStrategy')
