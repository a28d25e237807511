"""Names of conversation items, each with the one before it."""

from __future__ import annotations

from collections.abc import Callable

NewId = Callable[[str], str]
"""Makes an id with the prefix that it is given: `new_id("item")` → `item_…`."""


class Items:
    """The items of one conversation, in order.

    Attributes:
        current: the id of the item that what comes next belongs to.
        previous: the id of the one before it, or None.
    """

    def __init__(self, new_id: NewId) -> None:
        self._new_id = new_id
        self.current = new_id("item")
        self.previous: str | None = None

    def close(self) -> str:
        """The current item is complete: its id; another begins."""
        closed, self.previous = self.current, self.current
        self.current = self._new_id("item")
        return closed
