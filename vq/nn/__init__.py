"""Blocks that networks share."""
