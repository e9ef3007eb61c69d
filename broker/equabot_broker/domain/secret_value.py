"""A text type that cannot be printed by accident."""

import hashlib
import hmac
from typing import Final, NoReturn

_HIDDEN: Final = "SecretValue(hidden)"
_LABEL_MIN: Final = 24


class SecretValue:
    """Text that `repr`, `str`, `format`, `%`, pickling and tracebacks with locals cannot print.

    `.reveal()` is the only way out; a test asserts which files call it.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself. Pass it on at once; never keep it in a variable that a log or an error could contain."""
        return self.__value

    def label(self) -> str:
        """The first and last four characters of a value with 24 or more characters; `…` for a shorter one."""
        if len(self.__value) < _LABEL_MIN:
            return "…"
        return f"{self.__value[:4]}…{self.__value[-4:]}"

    def begins_with(self, prefix: str) -> bool:
        """Whether the text begins with a prefix that shows the kind of credential."""
        return self.__value.startswith(prefix)

    def digest(self, key: bytes, context: str = "") -> bytes:
        """A keyed digest of the text in a context (HMAC-SHA256, 16 bytes). It shows only whether two texts are equal."""
        return hmac.digest(key, context.encode() + b"\0" + self.__bytes(), hashlib.sha256)[:16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(self.__bytes(), other.__bytes())

    def __hash__(self) -> int:
        return hash(self.__value)

    def __bytes(self) -> bytes:
        # Otherwise a lone surrogate would raise an error that contains the whole text.
        return self.__value.encode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return _HIDDEN

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __copy__(self) -> "SecretValue":
        return self

    def __deepcopy__(self, memo: object) -> "SecretValue":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue cannot be pickled")

    __getstate__ = __reduce__
