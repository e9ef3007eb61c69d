"""Lease ids as users write them: the first characters, as many as identify one active lease."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from equabot_cli.connecting import addressed, admin
from equabot_cli.exits import Failure

_WHOLE: Final = 32
"""The number of characters of an id."""
_SHORTEST: Final = 12
_NAMED: Final = 5


def shortened(ids: Sequence[str]) -> Mapping[str, str]:
    """The shortest unambiguous prefix of each id, with at least twelve characters: the first twelve encode the time of the
    grant, so that later leases do not make it ambiguous."""
    ordered = sorted(set(ids))
    lengths = dict.fromkeys(ordered, _SHORTEST)
    for one, other in pairwise(ordered):
        alike = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for lease_id in (one, other):
            lengths[lease_id] = max(lengths[lease_id], alike + 1)
    return {lease_id: lease_id[:length] for lease_id, length in lengths.items()}


def whole(args: Namespace, written: str) -> str:
    """The id of the active lease with the prefix `written`; `written` itself if there is no such lease or the list cannot be
    read, as in an agent's container. Raises Failure if several leases match."""
    from equabot_client.errors import BrokerUnavailable  # noqa: PLC0415

    if len(written) >= _WHOLE or addressed(args):
        return written
    with admin(args) as connected:
        try:
            living = connected.list_leases()
        except BrokerUnavailable:
            return written
    found = [lease for lease in living if lease.id.startswith(written)]
    if len(found) > 1:
        named = ", ".join(f"{lease.id} ({lease.agent}, {lease.profile})" for lease in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise Failure(f"{written!r} is the prefix of {len(found)} leases: {named}{more}; write more characters of the id")
    return found[0].id if found else written
