"""Messages about unknown names. They list the known names and suggest the nearest one."""

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
    """The known name nearest to this one, or empty. Compares at most 500 names and 64 characters."""
    near = difflib.get_close_matches(name[:_COMPARED], list(islice(known, _AMONG)), n=1, cutoff=_NEAR)
    return near[0] if near else ""


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a name that is close to a known one, otherwise empty."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def no_agent(name: str, known: Iterable[str]) -> str:
    """The message for an operator that an agent is not configured. It lists the configured agents."""
    names = sorted(known)
    more = f" and {len(names) - _AGENTS_SHOWN} more" if len(names) > _AGENTS_SHOWN else ""
    listed = f"the configured agents are {', '.join(names[:_AGENTS_SHOWN])}{more}"
    return f"agent {quoted(name)} is not configured: {listed}{meant(name, names)}"


def no_provider(name: str, known: Iterable[str]) -> str:
    """The message that no provider has that name."""
    hint = meant(name.lower(), known) or ": see `equabot models status`, or add it to providers"
    return f"provider {quoted(name)} is unknown{hint}"


def no_profile(profile_id: str, known: Iterable[str]) -> str:
    """The message that a profile does not exist. `known` are the ids of its provider that the caller may see."""
    ids = sorted(set(known))
    more = f" and {len(ids) - _PROFILES_SHOWN} more" if len(ids) > _PROFILES_SHOWN else ""
    listed = ", ".join(ids[:_PROFILES_SHOWN]) or "none"
    return f"profile {quoted(profile_id)} does not exist; profiles of this provider: {listed}{more}{meant(profile_id, ids)}"
