"""What a person writes after `/model`, and which model is meant. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from equabot_client import errors
from equabot_client._lease import Profile

_COMMAND: Final = "/model"
# After the last slash: a name, perhaps with the date of a release, then perhaps a profile.
_PARTS: Final = re.compile(r"(?P<model>(?:.*/)?(?:[^@/]+(?:@[0-9]{8}(?=@|\Z))?)?)(?P<at>@?)(?P<profile>.*)")
_PROFILE: Final = re.compile(r"[^:@]+:.+|[^:]+")
_LONGEST: Final = 256  # what the broker takes for a name


class CommandError(errors.InvalidArgument):
    """A command that cannot be followed. Its text is for whoever wrote it: what is wrong, and what would do."""


class Action(Enum):
    """What a command asks for."""

    LIST = "list"
    STATUS = "status"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class ModelCommand:
    """A command, read. `model` is as written (an alias, a number of the list, `provider/model`), `profile` a profile id or its
    second half; both are empty where nothing is said."""

    action: Action
    model: str = ""
    profile: str = ""


def is_command(text: str) -> bool:
    """Whether a message is `/model` or begins with it, and so is for `parse`."""
    return [word.casefold() for word in text.split(maxsplit=1)[:1]] == [_COMMAND]


def parse(text: str) -> ModelCommand:
    """Reads `/model`, `/model list`, `/model status`, `/model <alias-or-id>` and `/model <alias-or-id>@<profile>`.

    Case and blanks around words do not matter. The profile begins at the first `@` after the last `/` that does not begin a
    date, as in `claude-opus-4@20250514`. Raises CommandError.
    """
    if not is_command(text):
        raise CommandError(f"this is no {_COMMAND} command")
    rest = "@".join(part.strip() for part in text.strip()[len(_COMMAND) :].split("@"))
    if rest.casefold() in ("", Action.LIST.value, Action.STATUS.value):
        return ModelCommand(Action(rest.casefold() or Action.LIST.value))
    if re.search(r"\s", rest) or not rest.isprintable() or len(rest) > _LONGEST:
        raise CommandError(f"{_quote(rest)} is not one model: write /model <model>, or /model <model>@<profile>")
    model, at, profile = _PARTS.fullmatch(rest).groups()  # type: ignore[union-attr]  # every line has these parts
    if not model:
        raise CommandError("no model is named before the @: write /model <model>@<profile>")
    if at and not _PROFILE.fullmatch(profile):
        raise CommandError(f"a profile is named provider:name, or just name, unlike {_quote(profile)}")
    return ModelCommand(Action.SWITCH, model, profile)


def provider_of(model: str) -> str:
    """`anthropic` of `anthropic/claude-sonnet-4-5`."""
    return model.partition("/")[0]


def profile_id(written: str, candidates: Iterable[Profile]) -> str:
    """The one candidate that is meant, whatever the case and with or without its provider; else what was written."""
    wanted = written.casefold()
    meant = [c.id for c in candidates if wanted in (c.id.casefold(), c.id.partition(":")[2].casefold())]
    return meant[0] if len(meant) == 1 else written


class Choices:
    """The models of a conversation: its aliases, the default, and, unless `strict`, whatever is written `provider/model`."""

    def __init__(self, *, default: str, aliases: Mapping[str, str], strict: bool) -> None:
        """`default` is a `provider/model`, or an alias. Raises ValueError for what could never be chosen."""
        self._strict = strict
        self._aliases = dict(aliases)
        self._names = {alias.casefold(): model for alias, model in self._aliases.items()}
        if len(self._names) < len(self._aliases):
            raise ValueError("aliases: two differ in nothing but their case")
        for alias in self._aliases:
            if not _can_be_written(alias):
                raise ValueError(f"aliases: {alias!r} cannot be told from something else after /model; take one plain word")
        self.default = self._names.get(default.casefold(), default)
        for model in (*self._aliases.values(), self.default):
            if not _is_model(model):
                raise ValueError(f"{model!r} is not of the form provider/model")

    def listed(self, current: str) -> dict[str, tuple[str, ...]]:
        """The models in the order of the list, each with its aliases; the current one last where it has no other place."""
        models = dict.fromkeys([*self._aliases.values(), self.default, current])
        return {model: tuple(alias for alias, of in self._aliases.items() if of == model) for model in models}

    def find(self, written: str, *, current: str) -> str:
        """The `provider/model` that is meant. Raises CommandError."""
        listed = list(self.listed(current))
        if written.isascii() and written.isdecimal():
            if 1 <= int(written) <= len(listed):
                return listed[int(written) - 1]
            raise CommandError(f"there is no model number {written[:80]}: the list goes from 1 to {len(listed)}")
        wanted = written.casefold()
        known = self._names | {model.casefold(): model for model in listed}
        if wanted in known:
            return known[wanted]
        if _is_model(written) and not self._strict:
            provider, _, model = written.partition("/")
            return f"{provider.lower()}/{model}"
        there = ", ".join([*self._aliases, *([] if self._strict else ["any provider/model"])])
        raise CommandError(f"no model {_quote(written)}: there is {there or self.default}")


def _can_be_written(alias: str) -> bool:
    try:
        read = parse(f"/model {alias}")
    except CommandError:
        return False
    return read == ModelCommand(Action.SWITCH, alias) and "/" not in alias and not alias.isdecimal()


def _quote(written: str) -> str:
    return repr(written[:80])


def _is_model(written: str) -> bool:
    provider, _, model = written.partition("/")
    return bool(provider and model)
