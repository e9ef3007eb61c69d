"""From the names and texts of a bundle to profiles: the same for the environment, a file, a directory and a Secret.

For every provider the first usable value among its names makes the profile `<provider>:<name>`. Lists make
`<provider>:<name>-keys-1…`, names with a suffix `<provider>:<name>-<suffix>`; of equal values one is enough. A key that the
configuration names makes the configured profile instead.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_broker.discovery.hygiene import Unclean, clean, split_list
from equabot_broker.domain.ends import declare
from equabot_broker.domain.masking import is_misplaced_key, masked
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.domain.profiles import FOREIGN_LOGINS, DeclaredEnd, Profile, split_id
from equabot_broker.domain.provider import Catalog, Mode, Provider

_STEM: Final = "_API_KEY"
# `OPENAI_API_KEY_FILE` and its like say where a key is, or something else about it.
_NO_KEYS: Final = frozenset({"FILE", "PATH", "HELPER", "ID", "NAME", "URL", "COMMAND", "CMD"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._@+-]+")
_NAME_MAX: Final = 100
_PLAIN: Final = ("api-key", "token")
_SPELLED_FREELY: Final = frozenset({"mounted", "kubernetes"})
_REPLACE: Final = "rename it, and replace that key"

Texts = Mapping[str, str | bytes]


class ValueLocation(NamedTuple):
    """Where a configured profile's value is: the kind of source, the unit in it ("" for its only or topmost one), the key."""

    kind: str
    unit: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What the configuration says of a profile, whatever its source says. `expires_at` in seconds since the epoch."""

    mode: Mode | None = None
    expires_at: float | None = None

    def end(self, profile_id: str, own: float | None) -> DeclaredEnd | None:
        """The end that is declared here, for a value whose own end is `own`."""
        return declare(self.expires_at, f"profiles.{profile_id}.expires_at", own=own)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleNotes:
    """What a bundle says of itself in addition to its values: the provider whose credentials they are, the second half of its
    profiles' ids, their mode and when they expire (seconds since the epoch; `ends_at` is the place that says so). What it does
    not say is found out, or unknown. `newer` are the keys whose values were written after that end."""

    provider: str = ""
    name: str = ""
    mode: Mode | None = None
    expires_at: float | None = None
    ends_at: str = ""
    newer: frozenset[str] = frozenset()

    def end(self, key: str) -> DeclaredEnd | None:
        """The end that is declared here, for the value of that key."""
        return declare(self.expires_at, self.ends_at, older=key in self.newer)


NOTHING: Final = BundleNotes()


@dataclass(frozen=True)
class DiscoveryRules:
    """What makes a profile. `bindings` are profile ids by the place of their value, `overrides` are by profile id;
    `foreign_logins` are the profiles whose refresh token another program redeems."""

    catalog: Catalog
    bindings: Mapping[ValueLocation, str] = field(default_factory=lambda: MappingProxyType({}))
    overrides: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))
    foreign_logins: frozenset[str] = FOREIGN_LOGINS

    def wants(self, key: str, *, kind: str, unit: str = "") -> bool:
        """Whether this key of a bundle could make a profile, so that it is worth reading. Costs the same for any catalog."""
        return (kind, unit, key) in self.bindings or bool(self._uses(key, kind))

    def discover(
        self,
        values: Texts,
        *,
        kind: str,
        source: str,
        unit: str,
        name: str,
        origin: Callable[[str], str],
        said: BundleNotes = NOTHING,
    ) -> Unit:
        """The bundle's profiles, and what is wrong with the rest.

        `name` is what discovered profiles are named after; `origin` says where a person finds a key. A value that cannot be
        used makes a profile without secret, or a fault where another value makes the profile.
        """
        found = _Finding(self, _Bundle(values, source, unit, said.name or safe_name(name) or kind, origin, said))
        uses: dict[str, list[_Use]] = {}
        misplaced = {key for key in values if is_misplaced_key(key)}
        for key in misplaced:
            if said.provider or self.wants(key, kind=kind, unit=unit):
                found.misplaced(key)
        values = {key: text for key, text in values.items() if key not in misplaced}
        for key in values:
            if bound := self.bindings.get(ValueLocation(kind, unit, key)):
                found.bound(bound, key)
                continue
            for use in self._uses(key, kind):
                uses.setdefault(use.provider, []).append(use)
        if said.provider:
            free = [key for key in values if ValueLocation(kind, unit, key) not in self.bindings]
            uses = found.declared(self.catalog.providers[said.provider], uses, free)
        for provider in self.catalog.providers.values():
            if provider.id in uses:
                found.provider(provider, sorted(uses[provider.id]))
        return Unit(unit, tuple(found.profiles.values()), tuple(found.faults))

    def _uses(self, key: str, kind: str) -> "Sequence[_Use]":
        """What a key is to providers. The names of files and of a Secret's keys may be spelled as Docker and Azure spell them:
        `anthropic_api_key`, `anthropic-api-key`."""
        uses = self._index.uses(key)
        if uses or kind not in _SPELLED_FREELY or len(key) > _NAME_MAX:
            return uses
        return [use._replace(key=key) for use in self._index.uses(key.upper().replace("-", "_"))]

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self.catalog)


def safe_name(name: str) -> str:
    """The name as the second half of a profile id may have it; empty where no character of it is allowed there."""
    return _UNSAFE.sub("-", name).lstrip("-._@+")[:_NAME_MAX]


class _Use(NamedTuple):
    """What a key is to a provider. In the order in which they are looked at."""

    provider: str
    order: int
    rank: int
    suffix: str
    key: str
    mode: Mode = Mode.API_KEY


_SINGLE, _SIBLING, _LIST = range(3)


class _Index:
    """Which keys mean anything, and to whom: a lookup a key, however many providers there are."""

    def __init__(self, catalog: Catalog) -> None:
        self._names: defaultdict[str, list[_Use]] = defaultdict(list)
        self._stems: defaultdict[str, list[str]] = defaultdict(list)
        for provider in catalog.providers.values():
            for rank, env in enumerate(provider.env_names):
                self._names[env.name].append(_Use(provider.id, _SINGLE, rank, "", env.name, env.mode))
                if env.name.endswith(_STEM):
                    self._stems[env.name].append(provider.id)
            for rank, name in enumerate(provider.list_env_names):
                self._names[name].append(_Use(provider.id, _LIST, rank, "", name))

    def uses(self, key: str) -> Sequence[_Use]:
        named = self._names.get(key)
        if named is not None:
            return named
        head, stem, rest = key.partition(_STEM + "_")
        suffix = safe_name(rest.lower()) if stem and rest.isprintable() else ""
        if not suffix or rest.upper() in _NO_KEYS:
            return ()
        return [_Use(provider, _SIBLING, 0, suffix, key) for provider in self._stems.get(head + _STEM, ())]


class _Bundle(NamedTuple):
    values: Texts
    source: str
    unit: str
    name: str
    origin: Callable[[str], str]
    said: BundleNotes


class _Finding:
    """One pass over a bundle."""

    def __init__(self, rules: DiscoveryRules, bundle: _Bundle) -> None:
        self._rules = rules
        self._bundle = bundle
        self.profiles: dict[str, Profile] = {}
        self.faults: list[SourceFault] = []

    def misplaced(self, key: str) -> None:
        """A key whose name looks like a key."""
        where = masked(self._bundle.origin(key))
        self.faults.append(SourceFault(where, f"{where} has a name that looks like a key, so it is not used: {_REPLACE}"))

    def bound(self, profile_id: str, key: str) -> None:
        """A configured profile."""
        provider = self._rules.catalog.get(split_id(profile_id)[0])
        if provider is None:
            self._fault(key, f"is meant for {profile_id}, whose provider is unknown: add it to providers")
            return
        mode = next((env.mode for env in provider.env_names if env.name == key), Mode.API_KEY)
        self._keep(replace(self._profile(profile_id, provider, key, self._bundle.values[key], mode), configured=True))

    def declared(self, provider: Provider, uses: Mapping[str, list[_Use]], keys: Sequence[str]) -> dict[str, list[_Use]]:
        """What a bundle holds that says whose it is. Returns the uses of its keys that are named for that provider; where none
        is, another one makes the profile. What is named for another provider contradicts it."""
        own = uses.get(provider.id, [])
        named = {use.key for use in own}
        others = {use.key: use.provider for found in uses.values() for use in found if use.key not in named}
        for key, owner in others.items():
            self._fault(key, f"is named for {owner}, but is declared to be {provider.id}'s: correct the one or the other")
        if own:
            return {provider.id: own}
        plain = [key for key in keys if key not in others]
        chosen = plain[0] if len(plain) == 1 else next((key for key in _PLAIN if key in plain), "")
        if chosen:
            self._keep(self._plain(provider, chosen))
        elif plain:
            names = ", ".join((*(env.name for env in provider.env_names[:1]), *_PLAIN))
            where = f"{self._bundle.source} {self._bundle.unit}".rstrip()
            self.faults.append(
                SourceFault(
                    where, f"{where} has {len(plain)} keys, and none says that it is the credential: call it one of {names}"
                )
            )
        return {}

    def _plain(self, provider: Provider, key: str) -> Profile:
        """The profile of a key that says nothing of what it holds: a key or a token, as the value shows."""
        modes = (Mode.API_KEY, Mode.TOKEN) if key != "token" else (Mode.TOKEN, Mode.API_KEY)
        name = f"{provider.id}:{self._bundle.name}"
        first, second = (self._profile(name, provider, key, self._bundle.values[key], mode) for mode in modes)
        return second if first.secret is None and second.secret is not None else first

    def provider(self, provider: Provider, uses: Sequence[_Use]) -> None:
        """What the bundle holds for one provider."""
        name = f"{provider.id}:{self._bundle.name}"
        singles = [use for use in uses if use.order == _SINGLE]
        made = [self._profile(name, provider, use.key, self._bundle.values[use.key], use.mode) for use in singles]
        chosen = next((profile for profile in made if profile.secret is not None), made[0] if made else None)
        if chosen is not None:
            self._keep(chosen)
            refused = (profile for profile in made if profile.secret is None and profile is not chosen)
            self.faults += [SourceFault(profile.origin, profile.fault) for profile in refused]
        known = {profile.secret for profile in self.profiles.values() if profile.provider == provider.id}
        for profile_id, key, text in self._further(name, uses):
            further = self._profile(profile_id, provider, key, text, Mode.API_KEY)
            if further.secret is None or further.secret not in known:
                self._keep(further)
                known.add(further.secret)

    def _further(self, name: str, uses: Sequence[_Use]) -> Iterator[tuple[str, str, str | bytes]]:
        number = 0
        for use in uses:
            text = self._bundle.values[use.key]
            if use.order == _SIBLING:
                yield f"{name}-{use.suffix}", use.key, text
            elif use.order == _LIST:
                try:
                    parts = split_list(text)
                except Unclean as unclean:
                    self._fault(use.key, unclean.reason)
                    continue
                for part in parts:
                    number += 1
                    yield f"{name}-keys-{number}", use.key, part

    def _profile(self, profile_id: str, provider: Provider, key: str, text: str | bytes, mode: Mode) -> Profile:
        override = self._rules.overrides.get(profile_id, Override())
        said = self._bundle.said
        mode = override.mode or said.mode or mode
        end = override.end(profile_id, None) or said.end(key)
        secret, fault, origin = None, "", self._bundle.origin(key)
        try:
            secret = clean(text, provider=provider, mode=mode, catalog=self._rules.catalog)
        except Unclean as unclean:
            fault = f"{origin} {unclean.reason}"
        return Profile(
            id=profile_id,
            provider=provider.id,
            mode=mode,
            source=self._bundle.source,
            unit=self._bundle.unit,
            origin=origin,
            secret=secret,
            fault=fault,
            expires_at=None if end is None else end.at,
            declared=end,
        )

    def _keep(self, profile: Profile) -> None:
        self.profiles.setdefault(profile.id, profile)

    def _fault(self, key: str, reason: str) -> None:
        origin = self._bundle.origin(key)
        self.faults.append(SourceFault(origin, f"{origin} {reason}"))
