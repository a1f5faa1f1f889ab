"""Rows of parquet or Arrow files: what the package datasets saved, or a repository of its hub. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'hugging_face')
