"""A bundle as people mount or store it: values under the names of environment variables, and beside them whole files of logins.

The same for a directory and for a Kubernetes Secret. Its files are read and never written: whoever puts them there keeps them
fresh, so no refresh token in them is the broker's to redeem.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from broker.domain.auth_document import LARGEST, Malformed, parse
from broker.domain.auth_entries import store_unit
from broker.domain.discovery import Rules, Texts, safe_name
from broker.domain.material import Unit
from broker.domain.profiles import split_id
from broker.domain.tool_logins import CLAUDE, SIZE_MAX, read_login

T = TypeVar("T")

STORE: Final = "auth-profiles.json"
CLAUDE_LOGIN: Final = ".credentials.json"
FILES: Final[Mapping[str, int]] = {STORE: LARGEST, CLAUDE_LOGIN: SIZE_MAX}
"""The files of logins that a bundle may have, and the bytes that each may have."""


def bundle_unit(
    values: Texts, *, rules: Rules, kind: str, source: str, unit: str, name: str, origin: Callable[[str], str]
) -> Unit:
    """The unit that a bundle makes. Arguments as those of `Rules.discover`, but that `name` is empty for a bundle without one.

    Claude's login is called after the bundle, or `claude-cli` where that has no name or the name is taken. Raises Malformed
    for a file that cannot be understood: half a bundle is none.
    """
    keys = {key: text for key, text in values.items() if key not in FILES}
    units = [rules.discover(keys, kind=kind, source=source, unit=unit, name=name or kind, origin=origin)]
    if STORE in values:
        document = _understood(parse, values[STORE], origin(STORE))
        units.append(store_unit(document, rules=rules, source=source, name=unit, origin=origin(STORE), owner=""))
    if CLAUDE_LOGIN in values:
        own = f"{split_id(CLAUDE.profile_id)[0]}:{safe_name(name)}"
        taken = not safe_name(name) or any(profile.id == own for made in units for profile in made.profiles)
        read = partial(
            read_login, CLAUDE, changed_at=0.0, rules=rules, source=source, unit=unit, origin=origin(CLAUDE_LOGIN),
            profile_id="" if taken else own,
        )  # fmt: skip
        units.append(_understood(read, values[CLAUDE_LOGIN], origin(CLAUDE_LOGIN)))
    profiles = [replace(profile, refresh=None, reauth="") for made in units for profile in made.profiles]
    return Unit(unit, tuple(profiles), tuple(fault for made in units for fault in made.faults))


def _understood(read: Callable[[bytes], T], text: str | bytes, origin: str) -> T:
    try:
        return read(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    except Malformed as malformed:
        fault = Malformed(f"{origin} is not usable: {malformed}")
    raise fault
