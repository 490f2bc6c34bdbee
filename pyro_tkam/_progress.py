"""A progress line for work that takes longer than two seconds."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

SILENT_SECONDS = 2.0


class Progress:
    """Shows on one line what is going on, but nothing in the first two seconds.

    :param disabled: tell nothing at all; if None, where there is no terminal.
    """

    def __init__(self, disabled: bool | None) -> None:
        self.disabled = disabled
        self._route = self._so_far = ""

    def __enter__(self) -> Progress:
        self._bar = tqdm(
            bar_format="{desc} [{elapsed}]",
            disable=self.disabled,
            delay=SILENT_SECONDS,
            leave=False,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def route(self, name: str) -> None:
        """Begin a new route."""
        self._route = name
        self.tell("")

    def found(self, standard_error: float) -> None:
        """From now on, show the standard error of the best estimate so far."""
        self.so_far(f"standard error so far {standard_error:.2g}")

    def so_far(self, what: str) -> None:
        """From now on, show this after what is going on."""
        self._so_far = f", {what}"

    def tell(self, what: str) -> None:
        """Show the progress."""
        where = f"{self._route}: {what}" if what else self._route
        self._bar.set_description_str(where + self._so_far, False)
        self._bar.update()
