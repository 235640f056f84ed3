"""Progress of long work, counted in network passes, and a way to stop it between two passes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Cancelled", "Progress", "checked"]


class Cancelled(RuntimeError):  # noqa: N818 - nothing went wrong
    """The work was stopped by `Progress.cancel`.  The pipeline is as it was before, and there is no result."""


class Progress:
    """Pass one to `invert`, `reconstruct` or `edit` to follow the work and to stop it.

        progress = renoise.Progress(lambda p: print(p.stage, p.passes, "of", p.total))
        renoise.invert(pipe, image, prompt, progress=progress)

    Another thread, or the function itself, may call `cancel`.  The work then raises `Cancelled` before its next
    network pass.

    Attributes:
        stage: what is being done: "invert", or "generate" for reconstructions and edits.  "" before the first stage.
        total: number of passes in this stage.  With a tolerance it is an upper limit.
        passes: number of passes done in this stage.
        cancelled: whether `cancel` was called.  This is never reset, so make a new object for new work.
    """

    def __init__(self, on_pass: Callable[[Progress], object] | None = None) -> None:
        """`on_pass` is called with this object when a stage begins and after each pass."""
        self.stage, self.total, self.passes, self.cancelled = "", 0, 0, False
        self._on_pass = on_pass

    def begin(self, stage: str, total: int) -> None:
        """Start a stage of `total` passes.  Raises `Cancelled` if `cancel` was called."""
        self.stage, self.total, self.passes = stage, total, 0
        self._tell()

    def advance(self, passes: int) -> None:
        """Count `passes` more passes as done.  Raises `Cancelled` if `cancel` was called."""
        self.passes += passes
        self._tell()

    def end(self) -> None:
        """Called when a stage is over, with or without success.  Does nothing here; a progress bar closes itself."""

    def cancel(self) -> None:
        """Stop the work before its next pass.  May be called from any thread."""
        self.cancelled = True

    def _tell(self) -> None:
        if self._on_pass:
            self._on_pass(self)
        if self.cancelled:
            raise Cancelled(f"cancelled after {self.passes} of {self.total} passes of the stage {self.stage!r}")


def checked(progress: object) -> None:
    """Refuses, by TypeError, what can neither be told of passes nor stop them."""
    if progress is not None and not isinstance(progress, Progress):
        raise TypeError(f"progress={progress!r} is no Progress: pass renoise.Progress(function)")
