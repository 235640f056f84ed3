"""Measuring on data sets, and reading what `renoise batch` made."""

from renoise.evaluation.batches import open_batch

__all__ = ["open_batch"]
