"""The progress of passes, on the bar that the pipeline itself would have shown."""

from __future__ import annotations

from typing import Any

from renoise.core.progress import Progress

__all__ = ["PassBar"]


class PassBar(Progress):
    """The pipeline's own progress bar, counting passes."""

    def __init__(self, pipe: Any) -> None:
        """Made before the pipeline is called, which hides bars of its own while it answers queries."""
        super().__init__()
        self._bar: Any = pipe.progress_bar(total=1)

    def begin(self, stage: str, total: int) -> None:
        self._bar.set_description(stage)
        self._bar.reset(total=total)
        super().begin(stage, total)

    def advance(self, passes: int) -> None:
        self._bar.update(passes)
        super().advance(passes)

    def end(self) -> None:
        self._bar.close()
