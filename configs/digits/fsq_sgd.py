"""FSQ with plain SGD and Nesterov momentum, one line away from fsq.py: what an optimizer is worth. AdamW is ahead here.

    auto_torchrun -m vq.train digits_fsq_sgd configs/digits/fsq_sgd.py

HEADER
"""

_base_ = ['fsq.py']

_export_ = dict(
    trainer=dict(optimizers=dict(tokenizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, nesterov=True))),
)
