"""New pictures like yours, one token after the other: a small Llama on the tokens of a run of tokenizer.py.

    auto_torchrun -m vq.train gen configs/photos/ar.py --config-options tokenizer::tok

TO MEASURE minutes. Expected.
"""

from vq.recipes import photos_generator

_export_ = photos_generator(_kwargs_)
