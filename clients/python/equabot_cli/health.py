"""`equabot health`: checks the health service, for users, scripts and `exec` probes."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import addressed, admin, optional, refusals
from equabot_cli.exits import Exit, Failure
from equabot_cli.suggestions import nearest

if TYPE_CHECKING:
    from equabot_client.admin import Finding

_PAUSE = 0.1
_EXPLAINED: Final = 5


def add_parser(subparsers: Any, **described: str) -> None:
    """`health [SERVICE] [--wait seconds] [--address host:port] [--json]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "health",
        description="Check the health of a service. The exit code is 0 if it serves, 1 if not, and 3 if no broker answers.",
        examples=("equabot health", "equabot health provider/anthropic --wait 30"),
        exits={0: "The service serves.", 1: "The service does not serve, or does not exist.", 3: "No broker answers."},
        **described,
    )
    parser.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default="",
        help="The service: readiness, liveness, provider/NAME or profile/ID (default: the broker as a whole).",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="How many seconds to wait until the service serves (default: 0, one check).",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="The address of the health service (default: from the configuration)."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document, even if no broker answers.")
    add_places(parser)
    parser.set_defaults(run=run, agent=None)


def run(args: Namespace) -> int:
    """Prints SERVING, or raises Failure."""
    from equabot_client.health import check  # noqa: PLC0415

    address = args.address or _configured(args)
    pause, answer = Event(), None
    try:
        for _ in range(int(args.wait / _PAUSE)):
            with suppress(Failure), refusals(args):
                if check(args.service, address=address):
                    break
            pause.wait(_PAUSE)
        with refusals(args):
            answer = check(args.service, address=address)
            meant = _meant(args, address) if answer is None else []
    except Failure as failure:
        if args.json and failure.code == Exit.NO_BROKER:
            _document(args.service, address, status="NO_BROKER", message=failure.message)
        raise
    findings = [] if args.address or addressed(args) else _reasons(args, "" if answer else args.service)
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    status = {True: "SERVING", False: "NOT_SERVING", None: "NOT_FOUND"}[answer]
    message = {True: "", False: status, None: f"{status}: no such service{hint}"}[answer]
    if args.json:
        _document(args.service, address, status=status, message=message, findings=findings, meant=meant)
    elif answer:
        output.say(status)
    for found in findings if not args.json else ():
        output.complain(": ".join(filter(None, (found.subject, found.message, found.remedy))))
    if answer:
        return Exit.DONE
    raise Failure(f"{args.service or 'the broker'}: {message}")


def _document(
    service: str,
    address: str,
    *,
    status: str,
    message: str,
    findings: "Sequence[Finding]" = (),
    meant: Sequence[str] = (),
) -> None:
    """The JSON document, also if no broker answers."""
    output.report({
        "service": service,
        "status": status,
        "address": address,
        "message": message,
        "did_you_mean": list(meant),
        "findings": [asdict(found) for found in findings],
    })  # fmt: skip


def _meant(args: Namespace, address: str) -> list[str]:
    """Likely meanings of an unknown name: without its kind, or with a typing error. The broker knows the names."""
    from equabot_client.health import check  # noqa: PLC0415

    kind, slash, name = args.service.rpartition("/")
    known = {"": ("readiness", "liveness"), "provider": _providers(args), "profile": _profiles(args)}
    asked = [kind] if slash and kind in known else list(known)
    exact = [f"{one}/{name}" for one in ("provider", "profile") if one != kind]
    near = [f"{one}/{found}".lstrip("/") for one in asked if (found := nearest(name, known[one]))]
    for names in (exact, near):
        if there := [service for service in names if check(service, address=address) is not None]:
            return there
    return []


def _providers(args: Namespace) -> Iterable[str]:
    with suppress(Failure):
        names: Iterable[str] = args.program.local(args).providers().names()
        return names
    return ()


def _profiles(args: Namespace) -> Iterable[str]:
    """The ids of the profiles, if this user may ask the broker."""
    if args.address is not None or addressed(args):
        return ()
    with suppress(Failure), admin(args) as operator, optional():
        return {profile.id for profiles in operator.list_profiles().values() for profile in profiles}
    return ()


def _reasons(args: Namespace, silent: str) -> "list[Finding]":
    """The findings, if this user may ask the broker: the health service itself answers only yes or no. They explain the
    service that does not serve."""
    with suppress(Failure), admin(args) as operator, optional():
        found = (one for one in operator.findings() if one.severity == "error" or _concerns(one.subject, silent))
        return list(islice(found, _EXPLAINED))
    return []


def _concerns(subject: str, service: str) -> bool:
    """Whether a finding on the subject (a profile, an agent) can explain why the service does not serve."""
    kind, _, name = service.partition("/")
    mine = subject == name if kind == "profile" else subject.startswith(f"{name}:")
    return bool(name) and (mine or subject.startswith("agent "))


def _configured(args: Namespace) -> str:
    """The address of the health service by the configuration; without one, any of the broker's sockets answers."""
    from equabot_client import connect  # noqa: PLC0415

    address: str = args.program.local(args).health_address()
    return address or connect().address
