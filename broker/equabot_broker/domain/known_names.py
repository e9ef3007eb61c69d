"""Names that somebody wrote and that are not known: the one place that says so, which there are, and which one was meant."""

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Final

from equabot_broker.domain.masking import quoted

_COMPARED: Final = 64
_AMONG: Final = 500
_NEAR: Final = 0.65
_AGENTS_SHOWN: Final = 20
_PROFILES_SHOWN: Final = 10


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that this one is nearly; empty where none is. Looks at 500 names at most, and 64 characters of it."""
    near = difflib.get_close_matches(name[:_COMPARED], list(islice(known, _AMONG)), n=1, cutoff=_NEAR)
    return near[0] if near else ""


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a name that is nearly a known one, else nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def no_agent(name: str, known: Iterable[str]) -> str:
    """That no agent of that name is configured, for an operator: it lists the agents that are."""
    names = sorted(known)
    more = f" and {len(names) - _AGENTS_SHOWN} more" if len(names) > _AGENTS_SHOWN else ""
    listed = f"the configured agents are {', '.join(names[:_AGENTS_SHOWN])}{more}"
    return f"agent {quoted(name)} is not configured: {listed}{meant(name, names)}"


def no_provider(name: str, known: Iterable[str]) -> str:
    """That no provider has that name."""
    hint = meant(name.lower(), known) or ": see `equabot models status`, or add it to providers"
    return f"provider {quoted(name)} is unknown{hint}"


def no_profile(profile_id: str, known: Iterable[str]) -> str:
    """That no source holds such a profile. `known` are the ids of those of its provider that may be named."""
    ids = sorted(set(known))
    more = f" and {len(ids) - _PROFILES_SHOWN} more" if len(ids) > _PROFILES_SHOWN else ""
    listed = ", ".join(ids[:_PROFILES_SHOWN]) or "none of this provider"
    return f"no profile {quoted(profile_id)}; there is {listed}{more}{meant(profile_id, ids)}"
