"""`equabot exec`: a command with leases in its environment, which live exactly as long as it does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from broker.cli import child
from broker.cli.arguments import add_agent, add_places
from broker.cli.connecting import broker
from broker.cli.exits import Failure
from broker.cli.output import complain
from broker.cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_client import Broker, Lease, Secret


def add_parser(subparsers: Any, **described: str) -> None:
    """`exec PROVIDER… [--delivery D] [--agent A] -- CMD…`."""
    parser: ArgumentParser = subparsers.add_parser(
        "exec",
        usage="equabot exec [options] PROVIDER|PROFILE_ID ... -- COMMAND ...",
        description="The leases are renewed while COMMAND runs and given back when it ends. Signals go on to it; its exit code"
        " is handed on. What it was started with stays in its environment: after a rotation, start it again; not with"
        " --delivery brokered, whose token stays good for as long as COMMAND runs.",
        **described,
    )
    parser.add_argument("providers", metavar="PROVIDER|PROFILE_ID", nargs="+")
    parser.add_argument("--delivery", metavar="raw|brokered", help="what to be given (default: the agent's first)")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: Namespace) -> int:
    """Returns the command's exit code; 127 when there is no such command, 126 when it cannot be run."""
    if not args.command:
        args.parser.error("nothing to run: put the command behind --")
    program = child.find(args.command[0], path=environment().get("PATH"))
    # Signals are held before the client library starts threads, which inherit that.
    with child.held_signals(), broker(args) as connected:
        held = [_Held(connected, provider, args) for provider in args.providers]
        given = _environment([one.given for one in held])
        stopped_by = child.told_to_stop()
        if stopped_by is not None:
            return 128 + stopped_by
        return child.run(program, args.command, environment=given)


class _Held:
    """A lease that is kept for the command, and what the command was given of it at first."""

    def __init__(self, connected: "Broker", provider: str, args: Namespace) -> None:
        # A credential waits for a broker that is away; whoever has just typed a command wants to be told.
        connected.list_profiles(provider.partition(":")[0])
        self._verbose: bool = args.verbose
        self._token: Secret | None = None
        self._credential = connected.credential(provider, delivery=args.delivery, on_rotate=self._tell)
        self.given = self._credential.lease()
        self._token = self.given.secret

    def _tell(self, lease: "Lease") -> None:
        if lease.delivery == "brokered":
            if self._token not in (None, lease.secret):
                complain(
                    f"the lease token of {lease.provider} is over: the broker was away for longer than the lease lived"
                    " (see leases.default_ttl); start the command again"
                )
        elif self._verbose:
            complain(f"{lease.profile} was rotated; the command keeps what it was started with")


def _environment(leases: Sequence["Lease"]) -> Mapping[str, str]:
    """This process's environment with what the leases bring, and without what would be used beside or before it."""
    from broker.providers import PROVIDERS  # noqa: PLC0415

    given = dict(environment())
    for lease in leases:
        if not lease.env:
            raise Failure(f"{lease.provider}: no environment variable is known for it; `equabot key` prints its secret")
        if lease.delivery == "brokered" and lease.base_url not in lease.env.values():
            name = f"providers.{lease.provider}.base_url_env"
            raise Failure(f"{lease.provider}: no variable is known in which its SDK takes the gateway's address: set {name}")
        known = PROVIDERS.get(lease.provider)
        for name in known.sdk_env.values() if known else ():
            given.pop(name, None)
    for lease in leases:
        given.update(lease.env)
        if lease.delivery == "brokered":
            _past_proxies(given, urlsplit(lease.base_url).hostname or "")
    return given


def _past_proxies(given: dict[str, str], host: str) -> None:
    """The gateway is reached directly: a proxy would have the token and not the way, or refuse both."""
    for name in ("no_proxy", "NO_PROXY"):
        known = given.get(name) or given.get(name.swapcase(), "")
        if host not in known.split(","):
            given[name] = f"{known},{host}".lstrip(",")
