"""Stores a credential in an agent's store, and adds its name to the configuration.

Both files are written under their locks, with or without a running broker. A running broker sees the change by itself.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equabot_broker.cli.arguments import chosen_agent, configuration
from equabot_broker.config.recording import with_profile, without_profile
from equabot_broker.discovery.hygiene import Unclean, clean, joined
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.known_names import meant
from equabot_broker.domain.material import Unit
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.remedies import how_to_add
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.formats.auth_document import AuthDocument, with_entry
from equabot_broker.formats.auth_entries import entry_ids, store_unit
from equabot_broker.formats.auth_usage import usage_of, with_usage
from equabot_broker.schema.faults import ValueRefused, quote
from equabot_broker.schema.values import profile as parsed_profile
from equabot_broker.storage.edited_file import Unwritable, edit_file
from equabot_cli import output
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from equabot_broker.config.model import Config
    from equabot_broker.storage.auth_profiles import AuthProfiles

_SIZE_MAX = 1 << 20
_ELSEWHERE = {
    "is an OAuth token, not an API key": "it belongs in `equabot models auth paste-token --provider {0}`",
    "is an API key, not an OAuth token": "it belongs in `equabot models auth add --provider {0} --method api-key`",
}


@dataclass(frozen=True)
class CommandContext:
    """What a command works with: the configuration, and the agent whose store it changes."""

    config: "Config"
    agent: str

    @classmethod
    def of(cls, args: Namespace) -> "CommandContext":
        """The context that the arguments name. Raises Failure."""
        config = configuration(args)
        return cls(config, chosen_agent(args, config))

    @cached_property
    def store(self) -> "AuthProfiles":
        """The agent's store."""
        return self.store_of(self.agent)

    def store_of(self, agent: str) -> "AuthProfiles":
        """The store of any agent. Raises Failure."""
        from equabot_broker.bootstrap.stores import agent_stores  # noqa: PLC0415

        with faults():
            return agent_stores(self.config).of(agent)

    def entries(self, agent: str) -> Unit:
        """The profiles in an agent's store. Raises Failure."""
        store = self.store_of(agent)
        with faults():
            document = store.read()
        return store_unit(document, rules=self.config.rules, source="", name="", origin=str(store.path), owner=agent)

    def provider(self, written: str) -> Provider:
        """The provider with this id or alias. Raises Failure."""
        found = self.config.catalog.get(written)
        if found is None:
            hint = meant(written, self.config.catalog.providers) or "; describe it under providers in the configuration"
            raise Failure(f"provider {quote(written)} is not known{hint}", code=Exit.USAGE)
        return found

    def must_be_read(self, provider: Provider | None) -> None:
        """Raises Failure if no source reads the store, with the alternative. Called before the user is asked for anything."""
        if not self.config.places.stores:
            instead = how_to_add(provider, self.config.places)
            raise Failure(f"nothing was stored: no source of this broker reads {self.store.path}; instead, {instead}")

    def profile(self, written: str, provider: Provider) -> str:
        """The profile id with the provider's own id. Raises Failure for a profile of another provider and for an id that is
        not valid."""
        try:
            owner, name = parsed_profile(written)
        except ValueRefused as refused:
            message = str(refused)
        else:
            if self.config.catalog.normalise(owner) == provider.id:
                return f"{provider.id}:{name}"
            message = f"{written} is not a profile of {provider.id}: its id begins with {provider.id}:"
        raise Failure(message, code=Exit.USAGE)


@contextmanager
def faults() -> Iterator[None]:
    """Turns errors of a store that are raised inside into Failures."""
    from equabot_broker.ports import StoreFault  # noqa: PLC0415

    try:
        yield
    except StoreFault as fault:
        message = str(fault)
    else:
        return
    raise Failure(message)


def cleaned(secret: SecretValue, provider: Provider, mode: Mode, context: CommandContext) -> SecretValue:
    """The secret that the user gave, cleaned for the store. Raises Failure, without any part of the secret."""
    try:
        return clean(joined(secret.reveal()), provider=provider, mode=mode, catalog=context.config.catalog)
    except Unclean as unclean:
        reason = unclean.reason
    what = reason.partition(":")[0]
    remedy = _ELSEWHERE.get(what)
    raise Failure(f"the input {what}: {remedy.format(provider.id)}" if remedy else f"the input {reason}")


def store_credential(context: CommandContext, profile_id: str, entry: Mapping[str, Any]) -> None:
    """Stores a credential in place of the profile's old one, and removes the old one's cooldowns and rejections.

    Raises Failure if nothing was stored. A store that no source reads is not written.
    """
    context.must_be_read(context.config.catalog.get(str(entry["provider"])))
    replaced = False

    def change(document: AuthDocument) -> AuthDocument:
        nonlocal replaced
        written = entry_ids(document, context.config.catalog).get(profile_id, profile_id)
        replaced = written in document.entries
        before = usage_of(document, written)
        changed = with_entry(document, written, entry)
        return changed if before == Usage() else with_usage(changed, {written: Usage(last_used=before.last_used)})

    with faults():
        context.store.edit(change)
    expires = entry.get("expires")
    until = f", expires {output.relative(expires / 1000, now())}" if expires else ""
    output.say(f"{'replaced' if replaced else 'stored'} {profile_id} ({entry['type']}{until}) in {context.store.path}")
    record(context.config, profile_id, provider=str(entry["provider"]), mode=str(entry["type"]))
    _warn_of_exclusion(context, profile_id, str(entry["provider"]))


def record(config: "Config", profile_id: str, *, provider: str, mode: str) -> None:
    """Adds the profile to the configuration, or prints what to add by hand."""
    _rewrite(config, lambda text: with_profile(text, profile_id, provider=provider, mode=mode), f"{profile_id} is named in")


def unlist(config: "Config", profile_id: str) -> None:
    """Removes the profile from the configuration, or prints what to remove by hand."""
    if config.file is not None:
        _rewrite(config, lambda text: without_profile(text, profile_id), f"{profile_id} is removed from")


def configuration_file(config: "Config") -> Path:
    """The configuration file, or its default path."""
    return config.file or config.home / "equabot.yaml"


def _rewrite(config: "Config", change: Any, done: str) -> None:
    file = configuration_file(config)

    def changed(content: bytes) -> bytes:
        mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
        return mark + bytes(change(content.decode("utf-8-sig")).encode())

    try:
        # A file that needs no change may be read-only, such as a mounted configuration.
        if _would_change(file, changed) and edit_file(file, changed):
            output.say(f"{done} {file}")
    except ValueRefused as refused:
        output.complain(f"{file} {refused}")
    except Unwritable as unwritable:
        output.complain(f"{unwritable}; or change it by hand: auth.profiles")


def _would_change(file: Path, change: Callable[[bytes], bytes]) -> bool:
    try:
        content = read_whole(file, limit=_SIZE_MAX)
    except (FileNotFoundError, Unreadable):
        return True  # the write reports the fault
    return change(content) != content


def stored_order(context: CommandContext, provider: str) -> tuple[str, ...]:
    """The agent's own order of the provider. The store may have it under an alias. Raises Failure."""
    with faults():
        orders = context.store.read().order
    return next((ids for written, ids in orders.items() if context.config.catalog.normalise(written) == provider), ())


def _warn_of_exclusion(context: CommandContext, profile_id: str, provider: str) -> None:
    """Warns if an order leaves the profile out: an order is exclusive."""
    stored = stored_order(context, provider)
    if stored:
        if profile_id not in stored:
            ids = " ".join((profile_id, *stored))
            output.complain(
                f"the order of {context.agent} does not have {profile_id}, so it is not used: `equabot models auth order"
                f" set --provider {provider} --agent {context.agent} {ids}` puts it first"
            )
    elif profile_id not in context.config.order.get(provider, (profile_id,)):
        file = configuration_file(context.config)
        output.complain(f"auth.order.{provider} in {file} does not have {profile_id}, so it is not used: add it there")
