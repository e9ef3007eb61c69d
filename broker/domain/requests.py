"""Requests that go through the gateway: what a rule lets pass, and the one spelling in which a path is taken at all.

A rule is `[!][METHOD ]/path`, `*` standing for any characters: `POST /v1/messages`, `GET /v1/models*`, `!/organization*`. Of a
list, a request has to match one without `!`, if there is any, and none with it. HEAD is taken for GET.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
"""What an API is asked with. The others open tunnels, echo what they are sent, or are a browser's."""

_LONGEST: Final = 8192
_PLAIN: Final = "A-Za-z0-9._~-"
_ENCODED: Final = "|".join(
    f"{byte:02X}"
    for byte in range(0x20, 0x100)
    if byte != 0x7F and chr(byte) not in "/\\%" and not re.fullmatch(f"[{_PLAIN}]", chr(byte))
)
"""What may stand encoded: nothing that need not (RFC 3986, 6.2.2.2), and nothing that would mean another path once decoded."""
_PATH: Final = re.compile(rf"(?:/(?!\.\.?(?:/|$))(?:[!$&'()*+,=:@{_PLAIN}]|%(?i:{_ENCODED}))+)+/?|/")
_QUERY: Final = re.compile(r"[!-\"$-~]*")
_RULE: Final = re.compile(rf"(!?)(?:({'|'.join(sorted(METHODS))}) +)?(/[!-~]*)")
_ROUTE_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v[0-9][a-z0-9]{0,7}")
_DEEPEST: Final = 8


def target_fault(path: str, query: str) -> str:
    """Why a request's target is not taken, for a person; empty: it is. Two spellings of one path would make a rule for one of
    them worth nothing."""
    if len(path) + len(query) > _LONGEST:
        return f"the path is longer than {_LONGEST} characters"
    if not path.startswith("/"):
        return "the target must be a path, not an address"
    if not _is_plain(path):
        return "the path is not in its plain form: no '.' or '..', no '//', no backslash, nothing encoded that need not be"
    return "" if _QUERY.fullmatch(query) else "the query holds characters that have to be encoded"


@lru_cache(maxsize=256)  # of paths alone: a query may hold a key, which is not to be kept
def _is_plain(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


def rule(written: str) -> str:
    """A rule in its usual spelling. Raises ValueError, saying what would be right."""
    found = _RULE.fullmatch(written.strip())
    if found is None:
        raise ValueError(
            "must be a method and a path, like POST /v1/messages or GET /v1/models*, with ! before what is not allowed"
        )
    no, method, path = found.groups()
    return f"{no}{method} {path}" if method else f"{no}{path}"


@dataclass(frozen=True, slots=True)
class Rules:
    """A list of rules, ready to be asked. None: it says nothing."""

    _some: re.Pattern[str] | None
    _none: re.Pattern[str] | None

    def allow(self, method: str, *paths: str) -> bool:
        """Whether a request of that method passes, its path being told in every way in which a rule may have it."""
        asked = [f"{'GET' if method == 'HEAD' else method} {path}" for path in paths]
        # A vendor may not care for a slash at the end either.
        if self._none is not None and any(self._none.fullmatch(one) or self._none.fullmatch(one.rstrip("/")) for one in asked):
            return False
        return self._some is None or any(map(self._some.fullmatch, asked))


@lru_cache(maxsize=1024)
def rules(written: tuple[str, ...]) -> Rules:
    """The rules that `rule` has passed."""
    some = [one for one in written if not one.startswith("!")]
    none = [one.removeprefix("!") for one in written if one.startswith("!")]
    # A vendor may not care for the case of a path: what is forbidden is so in every one.
    return Rules(_pattern(some), _pattern(none, re.IGNORECASE))


def _pattern(written: Iterable[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str] | None:
    forms = []
    for one in written:
        method, _, path = one.rpartition(" ")
        method = "GET" if method == "HEAD" else method
        forms.append(f"{method or '[A-Z]+'} {_path_pattern(path)}")
    return re.compile("|".join(forms), flags) if forms else None


def _path_pattern(path: str) -> str:
    """Each star takes as little as it can and never more (`(?>…)`): it loses no match by that, and no path, however it was
    made, keeps the broker busy."""
    first, *others = map(re.escape, path.split("*"))
    if not others:
        return first
    return first + "".join(f"(?>.*?{part})" for part in others[:-1] if part) + f".*{others[-1]}"


@lru_cache(maxsize=256)  # a path may be long
def route(path: str) -> str:
    """The path without what makes it one of its kind, for logs and metrics: `/v1/files/file_01` → `/v1/files/*`. There are as
    many of them as an API has, not as many as there are requests."""
    words = path.split("/")
    told = [word if _ROUTE_WORD.fullmatch(word) or not word else _verb(word) for word in words[: _DEEPEST + 1]]
    return "/".join(told) + ("/…" if len(words) > _DEEPEST + 1 else "")


def _verb(word: str) -> str:
    """Google's `models/gemini-2.5:generateContent` ends in what is done."""
    _, colon, verb = word.rpartition(":")
    return f"*:{verb}" if colon and verb.isalpha() and len(verb) <= 32 else "*"
