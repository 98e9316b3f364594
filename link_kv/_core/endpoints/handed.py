"""What an endpoint's item is about to show."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from link_kv.item import Item


class Handed:
    """A value that was handed over to be written, which its item shows once the watch has told it."""

    __slots__ = ("_item", "revision", "value")

    def __init__(self, item: Item, value: Any, revision: float = math.inf) -> None:
        self.value = copy.deepcopy(value)  # an instrument may give the same list again, changed
        self.revision = revision
        """That of the write; infinite while it waits, 0 when there is nothing to wait for."""
        self._item = item

    @property
    def waits(self) -> bool:
        """Whether it is still to be written."""
        return self.revision == math.inf

    @property
    def pending(self) -> bool:
        """Whether the item does not show it yet, nor what came after it."""
        # An item that is gone has no revision of its own.
        if (self._item.revision or self._item.store.revision) >= self.revision:
            self.revision = 0
        return self.revision > 0
