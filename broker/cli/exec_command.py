"""`equabot exec`: a command with leases in its environment, which live exactly as long as it does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from broker.cli import child
from broker.cli.arguments import add_agent, add_delivery, add_places, configuration, delivery
from broker.cli.connecting import addressed, broker, configured
from broker.cli.exits import Failure
from broker.cli.output import complain
from broker.cli.surroundings import environment

if TYPE_CHECKING:
    from broker.domain.provider import Catalog
    from equabot_client import Broker, Credential, Lease, Secret

_VARIABLES: Final = ("env", "dotenv")
_DELIVERY: Final = "EQUABOT_DELIVERY"


def add_parser(subparsers: Any, **described: str) -> None:
    """`exec PROVIDER… [--delivery D] [--agent A] -- CMD…`."""
    parser: ArgumentParser = subparsers.add_parser(
        "exec",
        usage="equabot exec [options] PROVIDER|PROFILE_ID ... -- COMMAND ...",
        description="The leases are renewed while COMMAND runs and given back when it ends. Signals go on to it; its exit code"
        " is handed on. Where the broker has a gateway, COMMAND gets a token for it and no key: no variable of a known provider"
        " is in its environment but those of its leases. --delivery raw gives it the key itself, which stays as it is: after a"
        " rotation, start COMMAND again.",
        **described,
    )
    parser.add_argument("providers", metavar="PROVIDER|PROFILE_ID", nargs="+")
    add_delivery(parser, "default: EQUABOT_DELIVERY, else brokered where a gateway runs")
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
        given = _environment([one.given for one in held], *_known(args))
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
        self._credential, self.given = self._leased(connected, provider, delivery(args))
        self._token = self.given.secret

    def _leased(self, connected: "Broker", provider: str, asked: str | None) -> "tuple[Credential, Lease]":
        """A key is handed out where it is asked for, or where no gateway runs. A policy that refuses a token does not lead to
        one, nor does a provider without a list of requests."""
        from equabot_client.errors import DeliveryNotAllowed  # noqa: PLC0415

        credential = connected.credential(provider, delivery=asked or "brokered", on_rotate=self._tell)
        try:
            return credential, credential.lease()
        except DeliveryNotAllowed as refused:
            if asked is not None:
                raise
            why = refused
        credential.close()
        if why.metadata.get("cause") != "no_gateway":
            raise Failure(f"{why.reason}: {why.message}. The command would hold the key itself with --delivery raw")
        try:
            return self._leased(connected, provider, "raw")
        except DeliveryNotAllowed:
            raise why from None  # a gateway is what is missing, and not the right to the key

    def _tell(self, lease: "Lease") -> None:
        if lease.delivery == "brokered":
            if self._token not in (None, lease.secret):
                complain(
                    f"the lease token of {lease.provider} is over: the broker was away for longer than the lease lived"
                    " (see leases.default_ttl); start the command again"
                )
        elif self._verbose:
            complain(f"{lease.profile} was rotated; the command keeps what it was started with")


def _known(args: Namespace) -> "tuple[Catalog, frozenset[str]]":
    """The providers that are known here, and the variables from which the configuration takes profiles."""
    from broker.providers import BUILT_IN  # noqa: PLC0415

    if not configured(args):
        return BUILT_IN, frozenset()
    try:
        rules = configuration(args).rules
    except Failure:
        if addressed(args):  # the broker's configuration is another one
            return BUILT_IN, frozenset()
        raise
    return rules.catalog, frozenset(place.key for place in rules.bindings if place.kind in _VARIABLES)


def _environment(leases: Sequence["Lease"], catalog: "Catalog", bound: Collection[str]) -> Mapping[str, str]:
    """This process's environment with what the leases bring. Next to a token there is no key in it; next to a key, no other of
    the same provider."""
    from broker.domain.command_environment import screened, without_credentials  # noqa: PLC0415

    for lease in leases:
        if not lease.env:
            raise Failure(f"{lease.provider}: no environment variable is known for it; `equabot key` prints its secret")
        if lease.delivery == "brokered" and lease.base_url not in lease.env.values():
            name = f"providers.{lease.provider}.base_url_env"
            raise Failure(
                f"{lease.provider}: no variable is known in which its SDK takes the gateway's address: set {name}, or hand the"
                " key itself to the command with --delivery raw"
            )
    brokered = [lease for lease in leases if lease.delivery == "brokered"]
    if not brokered:
        given = without_credentials(environment(), filter(None, (catalog.get(lease.provider) for lease in leases)))
    else:
        screen = screened(environment(), catalog, bound=bound)
        given = {**screen.kept, _DELIVERY: "brokered"}
        if screen.unnamed:
            complain(f"removed from the command's environment, because they look like credentials: {', '.join(screen.unnamed)}")
    for lease in leases:
        given.update(lease.env)
    for lease in brokered:
        _past_proxies(given, urlsplit(lease.base_url).hostname or "")
    return given


def _past_proxies(given: dict[str, str], host: str) -> None:
    """The gateway is reached directly: a proxy would have the token and not the way, or refuse both."""
    for name in ("no_proxy", "NO_PROXY"):
        known = given.get(name) or given.get(name.swapcase(), "")
        if host not in known.split(","):
            given[name] = f"{known},{host}".lstrip(",")
