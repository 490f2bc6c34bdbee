"""A bar that tells what takes longer than two seconds."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

SILENT_SECONDS = 2.0


class Progress:
    """Tells on one line what is going on; nothing in the first two seconds.

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
        """Begin something new."""
        self._route = name
        self.tell("")

    def found(self, standard_error: float) -> None:
        """Tell from now on the standard error of an estimate that there is so far."""
        self._so_far = f", standard error so far {standard_error:.2g}"

    def tell(self, what: str) -> None:
        """Tell how far it is."""
        where = f"{self._route}: {what}" if what else self._route
        self._bar.set_description_str(where + self._so_far, False)
        self._bar.update()
