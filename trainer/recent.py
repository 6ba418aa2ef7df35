"""A bounded store of things that are costly to make."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The values that were asked for last."""

    def __init__(self, size: int) -> None:
        """Keeps `size` values, at least 1."""
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._values)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not kept; the one asked for longest ago gives way."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        # First, so that there is room for what is made.
        while len(self._values) >= self._size:
            self._values.popitem(last=False)
        self._values[key] = make()
        return self._values[key]
