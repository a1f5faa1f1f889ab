"""Cluster, for configs that load this file: see vq/recipes/cluster.py."""

from vq.recipes import cluster

_export_ = cluster(_kwargs_)
