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
        self._route = ""

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

    def tell(self, what: str) -> None:
        """Tell how far it is."""
        self._bar.set_description_str(f"{self._route}: {what}" if what else self._route, False)
        self._bar.update()
