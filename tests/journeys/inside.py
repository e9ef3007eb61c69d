"""`equabot serve` with somebody inside who looks at everything, and with faults that nobody would write on purpose.

Run as a program. On SIGUSR1 it logs every secret that it can get hold of, and writes to `inside.json` in its home all that
the broker's objects say of themselves, and what is in reach of them as plain text.
"""

import copy
import dataclasses
import gc
import json
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, MethodType
from typing import Any, NoReturn

from google.protobuf.message import Message

from equabot_broker.domain.errors import BrokerError
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.wiring import Engine
from equabot_broker.rpc.convert import LeaseMessages
from equabot_broker.sources import dotenv
from equabot_cli.main import main

EXPLODE = "explode"
"""The session whose lease cannot be sent, and the text that makes a source fail."""

_log = logging.getLogger("equabot_broker.inside")
_CONTAINERS = (dict, list, tuple, set, frozenset, deque, MappingProxyType)


def _reachable(start: object) -> Iterator[object]:
    """Everything of ours, and every container and text, that can be got at from there; not through a SecretValue, which is
    what hides, nor into messages, which are what is handed out."""
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (SecretValue, Message)):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, (*_CONTAINERS, MethodType)) or _ours(one) or type(one).__name__ == "cell":
            waiting += gc.get_referents(one)
            waiting += list(vars(one).values()) if hasattr(one, "__dict__") and not isinstance(one, type) else []


def _ours(one: object) -> bool:
    return type(one).__module__.startswith("equabot_broker.")


def _spoken(one: object) -> Iterator[str]:
    """What an object can be made to say."""
    ways: tuple[Callable[[], object], ...] = (
        lambda: repr(one),
        lambda: f"{one} {one!s} {one!a}",
        lambda: "%s %r" % (one, one),  # noqa: UP031 - one of the ways
        lambda: copy.copy(one),
        lambda: pickle.dumps(one).decode("latin-1"),
        lambda: json.dumps(one, default=str),
        lambda: dataclasses.asdict(one) if dataclasses.is_dataclass(one) and not isinstance(one, type) else "",
    )
    for way in ways:
        try:
            yield str(way())
        except Exception as error:  # noqa: BLE001 - what it fails with is said as well
            yield _failure(error)


def _failure(error: Exception) -> str:
    """With its local variables, unless one of them is half an object, which cannot say what it is."""
    try:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    except Exception:  # noqa: BLE001 - a copy that was broken off has no fields yet
        return "".join(traceback.TracebackException.from_exception(error).format())


def _refusals(engine: Engine, reasons: list[str]) -> Iterator[str]:
    """Errors of the engine with every local variable on their way."""

    def late() -> NoReturn:
        lease = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", ttl=0.001)).lease
        time.sleep(0.002)
        raise RuntimeError(engine.lease_service.renew("main", lease.id))

    asked: tuple[Callable[[], object], ...] = (
        late,
        lambda: engine.lease_service.acquire("main", LeaseRequest(profile="anthropic:nobody")),
        lambda: engine.lease_service.acquire("main", LeaseRequest(provider="groq")),
        lambda: engine.lease_service.acquire("stranger", LeaseRequest(provider="anthropic")),
        lambda: engine.lease_service.renew("main", "none"),
    )
    for ask in asked:
        try:
            ask()
        except BrokerError as error:
            reasons.append(error.reason)
            yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def _look(*_: object) -> None:
    engine = next(one for one in gc.get_objects() if isinstance(one, Engine))
    for candidate in (candidate for _, candidate in engine.registry.all()):
        if candidate.held.profile.secret is not None:
            _log.error("%s is %s!", candidate.id, candidate.held.profile.secret.reveal())
    found = list(_reachable(engine))
    reasons: list[str] = []
    report: Mapping[str, Any] = {
        "kinds": Counter(type(one).__name__ for one in found),
        "spoken": [said for one in found if _ours(one) for said in _spoken(one)] + list(_refusals(engine, reasons)),
        "reasons": reasons,
        "texts": [str(one) for one in found if isinstance(one, (str, bytes, bytearray))],
        "hidden": sum(isinstance(one, SecretValue) for one in gc.get_objects()),
    }
    written = Path(os.environ["EQUABOT_HOME"]) / "inside.new"
    written.write_text(json.dumps(report))
    written.rename(written.with_suffix(".json"))


def _fail_at_sending(send: Callable[[LeaseMessages, Grant], Any]) -> Callable[[LeaseMessages, Grant], Any]:
    def lease(self: LeaseMessages, granted: Grant) -> Any:
        message = send(self, granted)
        if granted.lease.session == EXPLODE:
            cause = KeyError(message.secret)
            cause.add_note(message.secret)
            raise RuntimeError(f"could not send {message}") from cause
        return message

    return lease


def _fail_at_reading(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parsing(raw: bytes, **about: Any) -> Any:
        if EXPLODE.encode() in raw:
            raise ValueError(raw, parse(raw, **about))
        return parse(raw, **about)

    return parsing


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _look)
    setattr(LeaseMessages, "lease", _fail_at_sending(LeaseMessages.lease))  # noqa: B010 - mypy would not have it
    setattr(dotenv, "parse_dotenv", _fail_at_reading(vars(dotenv)["parse_dotenv"]))  # noqa: B010
    sys.exit(main(["serve", *sys.argv[1:]]))
