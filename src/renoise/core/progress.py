"""Progress of long work in network passes, and how to stop it between two of them."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Cancelled", "Progress"]


class Cancelled(RuntimeError):  # noqa: N818 - nothing went wrong
    """The work was stopped by `Progress.cancel`; the pipeline is as it was before, and nothing was returned."""


class Progress:
    """Hand one to `invert`, `reconstruct` or `edit` to follow the work, and to stop it.

        progress = renoise.Progress(lambda p: print(p.stage, p.passes, "of", p.total))
        renoise.invert(pipe, image, prompt, progress=progress)

    Another thread, or the function itself, may call `cancel`: the work then ends with `Cancelled` before its next
    network pass.

    Attributes:
        stage: what is being done: "invert", or "generate" for reconstructions and edits.  "" before the first stage.
        total: passes of this stage; with a tolerance, at most.
        passes: passes of this stage so far.
        cancelled: whether `cancel` was called.  It stays so: make a new object for new work.
    """

    def __init__(self, on_pass: Callable[[Progress], object] | None = None) -> None:
        """Takes a function that is called when a stage begins and after each pass."""
        self.stage, self.total, self.passes, self.cancelled = "", 0, 0, False
        self._on_pass = on_pass

    def begin(self, stage: str, total: int) -> None:
        """A stage of so many passes begins; raises `Cancelled` where that was asked for."""
        self.stage, self.total, self.passes = stage, total, 0
        self._tell()

    def advance(self, passes: int) -> None:
        """So many more passes are done; raises `Cancelled` where that was asked for."""
        self.passes += passes
        self._tell()

    def end(self) -> None:
        """The stage is over, whether it succeeded or not.  Nothing is left to do here; a bar closes itself."""

    def cancel(self) -> None:
        """Stops the work before its next pass; may be called from any thread."""
        self.cancelled = True

    def _tell(self) -> None:
        if self._on_pass:
            self._on_pass(self)
        if self.cancelled:
            raise Cancelled(f"cancelled after {self.passes} of {self.total} passes of the stage {self.stage!r}")
