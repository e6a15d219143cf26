"""What files hold: models, and what else is saved and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

KINDS: dict[str, type[Stored]] = {}  # class name -> class, for `load`


class Stored:
    """What a file holds. A dataclass of this kind is known to `load` by its name."""

    def __init_subclass__(cls) -> None:
        """Make the class known to `load`."""
        super().__init_subclass__()
        KINDS[cls.__name__] = cls

    def _contents(self) -> dict[str, Any]:
        """What a file holds of it: arrays, texts, numbers, None, tuples, and others of its kind."""
        raise NotImplementedError

    @classmethod
    def _restored(cls, contents: dict[str, Any]) -> Self:
        """Make it again of its contents; raises ValueError or TypeError where they are wrong."""
        raise NotImplementedError
