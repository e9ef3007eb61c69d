"""A bundle as users mount or store it: values named like environment variables, and files of logins.

The format is the same for directories and Kubernetes Secrets. A directory is never written: the program that fills it
refreshes its logins, so the broker redeems no refresh token of it. It does redeem those in a Secret.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from equabot_broker.discovery.bundle_profiles import NOTHING, BundleNotes, DiscoveryRules, Texts, safe_name
from equabot_broker.domain.material import Unit
from equabot_broker.domain.profiles import split_id
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.auth_document import AuthDocument, parse
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.formats.secret_logins import CLAUDE_LOGIN, STORE, marked
from equabot_broker.formats.tool_logins import CLAUDE, SIZE_MAX, login_entry, read_login
from equabot_broker.parsing.untrusted_json import LARGEST, Malformed

T = TypeVar("T")

FILES: Final[Mapping[str, int]] = {STORE: LARGEST, CLAUDE_LOGIN: SIZE_MAX}
"""The login files of a bundle, with the maximum number of bytes of each."""


def bundle_unit(
    values: Texts,
    *,
    rules: DiscoveryRules,
    kind: str,
    source: str,
    unit: str,
    name: str,
    origin: Callable[[str], str],
    annotations: Mapping[str, str] | None = None,
    said: BundleNotes = NOTHING,
) -> Unit:
    """The unit of a bundle. Arguments as in `DiscoveryRules.discover`; `name` is empty for a bundle without one.

    Claude's login is named after the bundle, or `claude-cli` if the bundle has no name or the name is in use. Raises Malformed
    for a file that is not valid: a bundle is used as a whole.

    `annotations` are those of a Secret, whose logins the broker refreshes. It refreshes Claude's login only if it is `said` to
    be an OAuth login: otherwise it may be a copy that another program refreshes.
    """
    keys = {key: text for key, text in values.items() if key not in FILES}
    units = [rules.discover(keys, kind=kind, source=source, unit=unit, name=name or kind, origin=origin, said=said)]
    files = _Files({key: _bytes(values[key]) for key in FILES if key in values}, rules, source, unit, origin, annotations)
    if STORE in values:
        units.append(files.store())
    if CLAUDE_LOGIN in values:
        called = said.name or safe_name(name)
        own = f"{split_id(CLAUDE.profile_id)[0]}:{called}"
        taken = not called or any(profile.id == own for made in units for profile in made.profiles)
        units.append(files.login("" if taken else own, owned=said.mode is Mode.OAUTH))
    profiles = [profile for made in units for profile in made.profiles]
    return Unit(unit, tuple(profiles), tuple(fault for made in units for fault in made.faults))


@dataclass(frozen=True, slots=True)
class _Files:
    """The login files of a bundle."""

    texts: Mapping[str, bytes] = field(repr=False)
    rules: DiscoveryRules
    source: str
    unit: str
    origin: Callable[[str], str]
    annotations: Mapping[str, str] | None = field(repr=False)

    def store(self) -> Unit:
        origin = self.origin(STORE)
        document = _understood(parse, self.texts[STORE], origin)
        if self.annotations is not None:
            return self._owned(document, origin)
        made = self._made(document, origin)
        return replace(made, profiles=tuple(replace(profile, refresh=None, reauth="") for profile in made.profiles))

    def login(self, own: str, *, owned: bool) -> Unit:
        """Claude's login; `own` is empty if it keeps the tool's default name."""
        origin = self.origin(CLAUDE_LOGIN)
        entry = _understood(partial(login_entry, CLAUDE), self.texts[CLAUDE_LOGIN], origin)
        if owned and own and entry is not None:
            made = self._owned(AuthDocument({"profiles": {own: entry}}), origin)
            return replace(made, profiles=tuple(replace(profile, origin=origin) for profile in made.profiles))
        read = partial(
            read_login, CLAUDE, changed_at=0.0, rules=self.rules, source=self.source, unit=self.unit, origin=origin,
            profile_id=own,
        )  # fmt: skip
        return _understood(read, self.texts[CLAUDE_LOGIN], origin)

    def _owned(self, document: AuthDocument, origin: str) -> Unit:
        """With the marks on its refresh tokens."""
        try:
            return self._made(marked(document, self.annotations or {}), origin)
        except Malformed as malformed:
            fault = Malformed(f"{origin} is not usable: {malformed}")
        raise fault

    def _made(self, document: AuthDocument, origin: str) -> Unit:
        return store_unit(document, rules=self.rules, source=self.source, name=self.unit, origin=origin, owner="")


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _understood(read: Callable[[bytes], T], text: bytes, origin: str) -> T:
    try:
        return read(text)
    except Malformed as malformed:
        fault = Malformed(f"{origin} is not usable: {malformed}")
    raise fault
