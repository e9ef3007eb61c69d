"""The source `exec`: a program of the operator's reports the values, by the exec-provider protocol or as plain text."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, ValueLocation
from equabot_broker.domain.backoff import delays
from equabot_broker.domain.material import SourceEvent, SourceUnavailable, Unit, UnitsListed
from equabot_broker.domain.profiles import Profile
from equabot_broker.formats.exec_protocol import ANSWER_MAX, ExecAnswer, ExecValue, read_answer, read_text, request_of
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.ports import Clock
from equabot_broker.schema import values
from equabot_broker.schema.faults import ValueRefused, looks_secret, quote
from equabot_broker.schema.key_readers import DURATION, TEXT, VARIABLE
from equabot_broker.schema.reading import ConfigKey, ConfigNode, Many, Named, Text
from equabot_broker.sources._environment import process_environment
from equabot_broker.sources._program import ProgramFailed, ProgramRun
from equabot_broker.sources.declaration import SourceKind, SourceOptions

KIND: Final = "exec"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@ +-]{0,255}")
_IDS_MAX: Final = 512
_TIMEOUT_MAX: Final = 300.0
_REFRESH: Final = 300.0
_TIMEOUT: Final = 5.0
_PROTOCOL: Final = "protocol"
_PLAIN: Final = "value"
_AGAIN: Final = {"base": 1.0, "cap": 60.0}
"""Seconds until a program that failed is run again."""
_JITTER: Final = 0.1
_PART_OF_A_LIFE: Final = 2 / 3
"""A value that ends before the next regular run is asked for again after this part of its remaining time."""
_SOONEST: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """`ids` are the program's names of the values, by profile. `pass_env` are the variables that the program gets. `refresh`
    and `timeout` are in seconds. `plain`: the whole output is the value of the only id."""

    command: tuple[str, ...]
    ids: Mapping[str, str]
    name: str = ""
    pass_env: tuple[str, ...] = ()
    refresh: float = _REFRESH
    timeout: float = _TIMEOUT
    plain: bool = False

    @property
    def provider(self) -> str:
        """The name in the request, and of the source."""
        return self.name or Path(self.command[0]).name


class ExecProgram:
    """The source `exec <name>`. One unit a profile.

    A run asks for all ids. A program that fails makes the source unavailable. An id without a value makes its unit fail. In
    both cases the last values stay, as stale.
    """

    def __init__(
        self,
        options: ExecOptions,
        *,
        rules: DiscoveryRules,
        clock: Clock,
        environ: Callable[[], Mapping[str, str]] = process_environment,
    ) -> None:
        self.name = f"{KIND} {options.provider}"
        self._options = options
        bindings = {ValueLocation(KIND, profile, name): profile for profile, name in options.ids.items()}
        self._rules = replace(rules, bindings=MappingProxyType(bindings))
        self._clock = clock
        self._environ = environ
        self._asked = asyncio.Event()

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """What the program reports, after each run that reports something else, and after each run that was asked for."""
        served: SourceEvent | None = None
        waits = delays(**_AGAIN, rng=random.random)
        asked = True
        while True:
            self._asked.clear()
            found, ends = await self._found()
            if asked or found != served:
                served = found
                yield found
            if isinstance(found, UnitsListed) and not found.failed:
                waits = delays(**_AGAIN, rng=random.random)
                pause = self._pause(ends)
            else:
                pause = min(next(waits), self._options.refresh)
            asked = await self._wait(pause)

    def reread(self) -> None:
        """Runs the program again."""
        self._asked.set()

    def _pause(self, ends: list[float]) -> float:
        regular = self._options.refresh * (1 - _JITTER * random.random())  # noqa: S311 - against programs in step
        left = [(end - self._clock.now()) * _PART_OF_A_LIFE for end in ends if end > self._clock.now()]
        return min([regular, *(max(seconds, _SOONEST) for seconds in left)])

    async def _wait(self, seconds: float) -> bool:
        """Waits for so long, or until a caller asks. Returns whether one did."""
        async with asyncio.TaskGroup() as tasks:
            nap = tasks.create_task(self._clock.sleep(seconds))
            asked = tasks.create_task(self._asked.wait())
            await asyncio.wait({nap, asked}, return_when=asyncio.FIRST_COMPLETED)
            nap.cancel()
            asked.cancel()
        return self._asked.is_set()

    async def _found(self) -> tuple[SourceEvent, list[float]]:
        """What one run reports, and when its values end."""
        ids = tuple(dict.fromkeys(self._options.ids.values()))
        run = ProgramRun(
            self._options.command,
            stdin=request_of(self._options.provider, ids),
            environment={name: value for name, value in self._environ().items() if name in self._options.pass_env},
            within=self._options.timeout,
            largest=ANSWER_MAX,
            steady=self._clock.steady,
        )
        try:
            output = await asyncio.to_thread(run.output)
            answer = read_text(output, ids[0]) if self._options.plain else read_answer(output, ids)
        except ProgramFailed as failed:
            return SourceUnavailable(str(failed)), []
        except Malformed as malformed:
            return SourceUnavailable(f"the output of {self._options.command[0]} is not usable: {malformed}"), []
        finally:
            run.stop()
        return self._listed(answer), [value.expires_at for value in answer.values.values() if value.expires_at is not None]

    def _listed(self, answer: ExecAnswer) -> UnitsListed:
        units = []
        failed = {}
        for profile, name in self._options.ids.items():
            if value := answer.values.get(name):
                units.append(self._unit(profile, name, value))
            else:
                failed[profile] = f"{self.name} has no value for {name}: {answer.refused[name]}"
        return UnitsListed(tuple(units), MappingProxyType(failed))

    def _unit(self, profile: str, name: str, value: ExecValue) -> Unit:
        unit = self._rules.discover(
            {name: value.secret.reveal()},
            kind=KIND,
            source=self.name,
            unit=profile,
            name=KIND,
            origin=lambda key: f"{self.name} {key}",
        )
        return replace(unit, profiles=tuple(_ending(found, value.expires_at) for found in unit.profiles))


def _ending(profile: Profile, end: float | None) -> Profile:
    """The profile with the end that the program gave. An end in the configuration comes first."""
    if end is None:
        return profile
    if profile.declared is not None:
        return replace(profile, declared=replace(profile.declared, own=end))
    return replace(profile, expires_at=end)


# -- the configuration ---------------------------------------------------------------------------------------------------


def _command(place: ConfigNode) -> tuple[str, ...]:
    """The program and its arguments. An argument may come twice."""
    words = tuple(values.text(item.text()) for item in place.items())
    if not words or not words[0].startswith("/"):
        raise ValueRefused("must begin with the absolute path of a program, as [/usr/local/bin/op, read, op://team/openai/key]")
    return words


def _ids(place: ConfigNode) -> Mapping[str, str]:
    written = sum(1 for _ in place.pairs())
    found = Named(_profile, Text(_id))(place)
    if not 1 <= written <= _IDS_MAX:
        raise ValueRefused(f"must have from 1 to {_IDS_MAX} profiles, each with the program's id of its value")
    return found


def _profile(written: str) -> str:
    """The id of a profile: `openai:team`."""
    return ":".join(values.profile(written))


def _id(written: str) -> str:
    """The program's name of a value: letters, digits, spaces and `._:/@+-`, at most 256 characters."""
    if looks_secret(written):
        raise ValueRefused("looks like a key: write the program's name of the value, and replace that key")
    if not _ID.fullmatch(written):
        raise ValueRefused("is not an id: write letters, digits, spaces and ._:/@+-, at most 256 characters")
    return written


def _name(written: str) -> str:
    """A name of small letters, digits, `_` and `-`, which begins with a letter."""
    if not _NAME.fullmatch(written):
        raise ValueRefused(f"must be small letters, digits, _ and -, with a letter first, not {quote(written)}")
    return written


def _timeout(written: str) -> float:
    """A duration above zero, at most `5m`."""
    seconds = values.duration(written)
    if seconds > _TIMEOUT_MAX:
        raise ValueRefused(f"{quote(written)} is too long; at most 5m")
    return seconds


def _output(written: str) -> str:
    """`protocol` or `value`."""
    if written not in (_PROTOCOL, _PLAIN):
        raise ValueRefused(f"must be {_PROTOCOL} or {_PLAIN}, not {quote(written)}")
    return written


def _checked(given: Mapping[str, Any]) -> None:
    if given.get("output") == _PLAIN and len(given["ids"]) != 1:
        raise ValueRefused(f"has output: {_PLAIN}, with which a program reports one value: keep one profile in ids")


def _options(options: SourceOptions) -> ExecOptions:
    given = {key: value for key, value in options.items() if key != "output"}
    return ExecOptions(**given, plain=options.get("output") == _PLAIN)


EXEC: Final = SourceKind(
    name=KIND,
    means="A program that reports values: a password manager's command, or any program that speaks the exec-provider protocol.",
    keys={
        "command": ConfigKey(
            _command,
            "The absolute path of the program, and its arguments. No shell reads them.",
            default="required",
            example="[/usr/local/bin/secrets-helper]",
            shown=Many(TEXT, some=True),
        ),
        "ids": ConfigKey(
            _ids,
            "The program's id of a value, by profile.",
            default="required",
            example="{openai:team: team/openai}",
            shown=Named(_profile, Text(_id)),
        ),
        "name": ConfigKey(
            Text(_name),
            "The name of the source, and the `provider` of the request.",
            default="the program's file name",
            example="vault",
        ),
        "pass_env": ConfigKey(
            Many(VARIABLE, some=True),
            "The variables that the program gets. It has no others.",
            default="none",
            example="[HOME, PATH]",
        ),
        "refresh": ConfigKey(DURATION, "The time between two runs.", default="5m", example="1m"),
        "timeout": ConfigKey(Text(_timeout), "The time that a run may take.", default="5s", example="10s"),
        "output": ConfigKey(
            Text(_output),
            "`protocol`: the output is an answer of the protocol. `value`: the whole output is the value of the only id.",
            default=_PROTOCOL,
            example=_PLAIN,
        ),
    },
    needs=("command", "ids"),
    check=_checked,
    build=lambda options, context: ExecProgram(_options(options), rules=context.rules, clock=context.clock),
    shown=lambda options: _options(options).provider,
    usual=False,
)
