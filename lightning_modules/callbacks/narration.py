"""How the continuation of a prompt is shown while it is written: text as it comes, a bar for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import Console

HALF = "\ufffd"  # what half a character is read as


class Narration:
    """Text and images of one prompt on the terminal; elsewhere nothing is shown.

    Finished lines of text stay above the bar, the last one grows beside it.

    Args:
        title: said in front.
        decode: from ids to text.
        shown: False shows nothing.
        console: where to; the standard output if missing.
    """

    def __init__(
        self,
        title: str,
        decode: Callable[[Sequence[int]], str],
        *,
        shown: bool = True,
        console: Console | None = None,
    ) -> None:
        self.decode = decode
        self.ids: list[int] = []
        self.images = self.lines = 0
        console = console or get_console()
        self.shown = shown and console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self.shown,
        )
        self.title = title
        self.task = self.bar.add_task(title, total=None)

    def __enter__(self) -> Narration:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.bar.stop()

    def text(self, token: int) -> None:
        """A token of text has come."""
        self.ids.append(token)
        self._show()

    def image(self, done: int, of: int) -> None:
        """So many steps of an image are done."""
        self.bar.update(self.task, completed=done, total=of)
        if done == of:
            self.images += 1
            self._show()

    def _show(self) -> None:
        if not self.shown:
            return
        *whole, last = self.decode(self.ids).split("\n")
        for line in whole[self.lines :]:
            self.bar.console.print(line, markup=False, highlight=False)
        self.lines = len(whole)
        drawn = f" [{self.images} image{'s' if self.images > 1 else ''}]" if self.images else ""
        self.bar.update(self.task, description=f"{self.title}: {last.rstrip(HALF)}{drawn}")
