"""An alignment loss, for configs that load this file: hidden features of a generator, as in REPA, or of a tokenizer.

Python: ``losses=dict(align=PyConfig.load('models/alignment.py', place='generator.network.blocks.7', channels=1024))`` in the
model of a config. Needs the file of the teacher; its default is DINOv2.
"""

from vq.recipes import alignment

_export_ = alignment(_kwargs_)
