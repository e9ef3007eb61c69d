"""The path that a provider receives for one that a client asks for behind the gateway's `/<provider>`.

SDKs join a base URL and a path in ways of their own: one adds `/v1`, another leaves it to the base URL, a third adds the whole
base path of the vendor, so that a version is said twice or not at all. There are few ways to read such a path, and the list of
requests says which one is meant. All of them begin with the base path: a request never leaves it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from equabot_broker.domain.provider import Provider
from equabot_broker.routing.request_rules import allowed_paths, rules

_VERSION: Final = re.compile(r"v[0-9][a-z0-9]{0,15}")
_USUAL: Final = "v1"
"""The version that SDKs add without being asked. Any other one is meant."""
_LITERAL: Final = re.compile(r"[^{*]+")

_Roots = Mapping[str, tuple[str, ...]]
"""What comes between the base path and a segment, by that segment: `messages` → `/v1`."""


def received(method: str, path: str, *, base: str, written: tuple[str, ...]) -> str:
    """The whole path in its first reading that a rule of the list names; where none does, in its first one.

    `base` is the base path, `path` is in its plain form, `written` are the rules. What this returns has to be decided about,
    and has to be sent.
    """
    listed = rules(written, base)
    readings = dict.fromkeys(_readings(path, base, _roots(written, base)))
    return next((reading for reading in readings if listed.name(method, reading)), next(iter(readings)))


def received_by(provider: Provider, method: str, path: str, *, joined: bool = True) -> str:
    """The whole path that the provider receives for one behind the gateway's `/<provider>`. An Envoy with routes of its own
    does not have it `joined`: its routes take the base path out once, where it is said."""
    if joined:
        return received(method, path, base=provider.base_path, written=provider.requests)
    return path if path.startswith(f"{provider.base_path}/") else f"{provider.base_path}{path}"


def _readings(path: str, base: str, roots: _Roots) -> Iterator[str]:
    stem, _, last = base.rpartition("/")
    for spelling in dict.fromkeys((path, path.rstrip("/") or "/")):
        behind = spelling
        while base and behind.startswith(f"{base}/"):
            behind = behind.removeprefix(base)
        yield from (base + reading for reading in _behind(behind, last, roots))
        if stem and _VERSION.fullmatch(last) and behind.startswith(f"{stem}/"):
            # The base path without its version, however often it is said.
            while behind.startswith(f"{stem}/"):
                behind = behind.removeprefix(base if behind.startswith(f"{base}/") else stem)
            yield from (base + reading for reading in _behind(behind, last, roots))


def _behind(path: str, last: str, roots: _Roots) -> Iterator[str]:
    """Readings of what comes after the base path, whose `last` segment may be a version."""
    versions, tail = _split(path)
    above = [last] if _VERSION.fullmatch(last) else []
    pairs = zip([*above, *versions] if above else ["", *versions], versions, strict=False)
    once = [version for before, version in pairs if version != before]
    yield _joined(once, tail)
    others = [version for version in once if version != _USUAL]
    if above or others:
        yield _joined(others, tail)
    else:
        yield from (root + tail for root in roots.get(_first(tail), ()))
    yield from _between(path, roots)
    before, unasked, rest = path.rpartition(f"/{_USUAL}/")
    if unasked:
        yield f"{before}/{rest}"


def _between(path: str, roots: _Roots) -> Iterator[str]:
    """With a version between two segments, where a path lacks it: `/anthropic/messages` → `/anthropic/v1/messages`."""
    for segment, found in roots.items():
        for root in found:
            stem, _, version = root.rpartition("/")
            rest = path.removeprefix(stem)
            if stem and path.startswith(f"{stem}/") and _first(rest) == segment:
                yield f"{stem}/{version}{rest}"


def _split(path: str) -> tuple[list[str], str]:
    """The versions with which a path begins, and the rest of it."""
    segments = path.split("/")[1:]
    count = next((at for at, segment in enumerate(segments) if not _VERSION.fullmatch(segment)), len(segments))
    return segments[:count], "".join(f"/{segment}" for segment in segments[count:])


def _joined(versions: Sequence[str], tail: str) -> str:
    return "".join(f"/{version}" for version in versions) + tail


def _first(path: str) -> str:
    return path.split("/", 2)[1] if path else ""


@lru_cache(maxsize=256)
def _roots(written: tuple[str, ...], base: str) -> _Roots:
    """Of every rule whose path has a version in it, and a segment after that which says what is asked for."""
    found: dict[str, dict[str, None]] = {}
    for path in allowed_paths(written, base):
        segments = path.removeprefix(base).split("/")[1:]
        literal = [segment for segment in segments if _LITERAL.fullmatch(segment)]
        at = next((at for at, segment in enumerate(segments) if _VERSION.fullmatch(segment)), len(segments))
        if at + 1 < len(segments) and segments[: at + 2] == literal[: at + 2]:
            found.setdefault(segments[at + 1], {})[_joined(segments[: at + 1], "")] = None
    return {segment: tuple(roots) for segment, roots in found.items()}
