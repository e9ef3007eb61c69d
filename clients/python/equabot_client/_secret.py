"""Secrets that cannot show themselves."""

import hmac
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

_HIDDEN: Final = "Secret(hidden)"


class Secret:
    """Text that `repr`, `str`, `format`, pickling and tracebacks with locals cannot print. `reveal()` is the only way out."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself. Hand it on at once."""
        return self.__text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__text.encode(), other.__text.encode())

    def __hash__(self) -> int:
        return hash(self.__text)

    def __repr__(self) -> str:
        return _HIDDEN

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not pickle: the other process should ask the broker itself")


class SecretMap(Mapping[str, str]):
    """A read-only mapping that shows its names and hides its values. `dict(it)`, `{**it}` and every lookup give the text."""

    __slots__ = ("__texts",)

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.__texts = dict(texts)

    def __getitem__(self, name: str) -> str:
        return self.__texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__texts)

    def __len__(self) -> int:
        return len(self.__texts)

    def __repr__(self) -> str:
        return f"SecretMap({', '.join(self.__texts)})"

    def __copy__(self) -> "SecretMap":
        return self

    def __deepcopy__(self, memo: object) -> "SecretMap":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretMap does not pickle: the other process should ask the broker itself")
