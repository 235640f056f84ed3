"""Follow an inversion pass by pass, and stop it after ten of them: the pipeline is as before."""

import renoise


def look(progress):
    print(f"{progress.stage}: {progress.passes} of {progress.total} passes")
    if progress.passes == 10:
        progress.cancel()


pipe = renoise.models.load("emoji-turbo")
try:
    renoise.invert(pipe, renoise.models.EXAMPLE, "red apple, blob style", progress=renoise.Progress(look))
except renoise.Cancelled as stopped:
    print(stopped)
