"""The method itself: the steps of a sampler as rows of numbers, and the loops that walk them in both directions.

This package imports torch and the standard library only.
"""
