"""The method: sampler steps as numbers, and the loops that walk them both ways.  Imports torch and nothing else."""
