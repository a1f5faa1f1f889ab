"""New pictures like yours by masked generation.

    auto_torchrun -m vq.train gen configs/photos/maskgit.py --config-options tokenizer::tok

TO MEASURE minutes. Expected.
"""

from vq.recipes import photos_generator

_export_ = photos_generator(_kwargs_, method='masked', steps=8, choice_temperature=4.5, label_smoothing=0.1)
