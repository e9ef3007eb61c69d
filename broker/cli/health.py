"""`equabot health`: what a probe asks, for people, scripts and `exec` probes."""

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from threading import Event
from typing import Any, Final

from broker.cli import output
from broker.cli.arguments import add_places, configuration
from broker.cli.connecting import addressed, admin, optional, refusals
from broker.cli.exits import Exit, Failure

_PAUSE = 0.1
_EXPLAINED: Final = 5
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def add_parser(subparsers: Any, **described: str) -> None:
    """`health [SERVICE] [--wait seconds] [--address host:port]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "health", description="Exits with 0 when the service serves, 1 when it does not, 3 when no broker answers.", **described
    )
    parser.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default="",
        help="readiness, liveness, provider/NAME or profile/ID (default: the broker as a whole)",
    )
    parser.add_argument(
        "--wait", metavar="SECONDS", type=float, default=0.0, help="how long to ask until the service serves (default: once)"
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="where health is served (default: as configured)")
    add_places(parser)
    parser.set_defaults(run=run, agent=None)


def run(args: Namespace) -> int:
    """Prints SERVING, or raises Failure."""
    pause = Event()
    for _ in range(int(args.wait / _PAUSE)):
        with suppress(Failure):
            return _asked(args, last=False)
        pause.wait(_PAUSE)
    return _asked(args, last=True)


def _asked(args: Namespace, *, last: bool) -> int:
    from equabot_client.health import check  # noqa: PLC0415

    address = args.address or _configured(args)
    with refusals():
        serving = check(args.service, address=address)
        meant = [name for name in _meant(args.service) if check(name, address=address) is not None] if serving is None else []
    if serving:
        output.say("SERVING")
    if (serving or last) and args.address is None and not addressed(args):
        _explain(args, "" if serving else args.service)
    if serving:
        return Exit.DONE
    name = args.service or "the broker"
    if serving is None:
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
        raise Failure(f"{name}: NOT_FOUND: no such service{hint}")
    raise Failure(f"{name}: NOT_SERVING")


def _meant(service: str) -> list[str]:
    """What a name without its kind may be."""
    return [] if "/" in service else [f"provider/{service}", f"profile/{service}"]


def _explain(args: Namespace, silent: str) -> None:
    """Says on standard error what is wrong, where this user may ask the broker: health itself answers yes or no. Of the service
    that does not serve it says more."""
    try:
        with admin(args) as operator, optional():
            wrong = [found for found in operator.findings() if found.severity == "error" or _concerns(found.subject, silent)]
    except Failure:
        return
    for found in wrong[:_EXPLAINED]:
        output.complain(f"{found.subject}: {found.message}")


def _concerns(subject: str, service: str) -> bool:
    """Whether what is said of the subject (a profile, an agent) may be why the service does not serve."""
    kind, _, name = service.partition("/")
    mine = subject == name if kind == "profile" else subject.startswith(f"{name}:")
    return bool(name) and (mine or subject.startswith("agent "))


def _configured(args: Namespace) -> str:
    address = configuration(args).listen.health
    return str(address._replace(host=_EVERYWHERE.get(address.host, address.host)))
