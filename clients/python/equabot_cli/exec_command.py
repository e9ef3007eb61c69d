"""`equabot exec`: runs a command with leases in its environment; the leases last exactly as long as the command."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from equabot_cli import child, exec_variables
from equabot_cli.arguments import add_agent, add_delivery, add_places, delivery
from equabot_cli.connecting import addressed, broker, configured
from equabot_cli.exits import Failure
from equabot_cli.output import complain
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_cli.known_providers import KnownProvider, KnownProviders
    from equabot_client import Broker, Credential, Lease

_DELIVERY: Final = "EQUABOT_DELIVERY"
_ENDS: Final = {
    "revoked": "it was revoked",
    "agent_suspended": "the agent is suspended, until an operator resumes it",
    "no_usable_profile": "its credential was removed, and no other can serve",
    "policy": "the agent's policy no longer allows it",
    "policy_denied": "the agent's policy no longer allows it",
    "expired": "it expired before it was renewed; this machine or this command may have been paused",
    "broker_unavailable": "the broker was away for longer than the lifetime of the lease (see leases.default_ttl)",
}
"""The reason why a lease ended: the broker's reason, or the client's in lower case."""


def add_parser(subparsers: Any, **described: str) -> None:
    """`exec PROVIDER… [--as SDK] [--delivery D] [--agent A] -- CMD…`."""
    parser: ArgumentParser = subparsers.add_parser(
        "exec",
        usage="equabot exec [options] PROVIDER|PROFILE_ID ... -- COMMAND ...",
        description="Run COMMAND with leases in its environment. The leases are renewed while COMMAND runs and revoked when it"
        " ends. Signals are forwarded to COMMAND, and its exit code is returned. If the broker has a gateway, COMMAND gets a"
        " token for the gateway and no key. Its environment has no variables of a known provider except those of its leases."
        " With --delivery raw, COMMAND gets the key itself. The key does not change: start COMMAND again after a rotation.",
        examples=("equabot exec anthropic -- claude", "equabot exec openrouter --as openai -- python agent.py"),
        exits={
            126: "COMMAND cannot be run.",
            127: "COMMAND does not exist.",
            128: "And more: 128 plus the number of the signal that ended COMMAND.",
        },
        **described,
    )
    parser.add_argument("providers", metavar="PROVIDER|PROFILE_ID", nargs="+", help="The providers or profiles to lease.")
    parser.add_argument(
        "--as",
        dest="sdks",
        metavar="[PROVIDER=]openai|anthropic",
        type=exec_variables.sdk,
        action="append",
        default=[],
        help="Set the variables of this SDK, for a provider with a compatible API. For example, `exec openrouter --as openai`"
        " sets OPENAI_BASE_URL and OPENAI_API_KEY.",
    )
    add_delivery(parser, "brokered if a gateway runs, else raw")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: Namespace) -> int:
    """Returns the command's exit code; 127 if it does not exist, 126 if it cannot be run."""
    if not args.command:
        args.parser.error("no command: write it after --")
    program = child.find(args.command[0], path=environment().get("PATH"))
    # Signals are blocked before the client library starts threads, which inherit that.
    with child.held_signals(), broker(args) as connected:
        held = [_Held(connected, provider, args) for provider in args.providers]
        for notice in dict.fromkeys(one.given.notice for one in held if one.given.notice):
            complain(notice)
        given = _environment([one.given for one in held], args, *_known(args))
        stopped_by = child.told_to_stop()
        if stopped_by is not None:
            return 128 + stopped_by
        return child.run(program, args.command, environment=given)


class _Held:
    """A lease that is kept for the command, and what the command got of it at its start."""

    def __init__(self, connected: "Broker", provider: str, args: Namespace) -> None:
        # A credential waits for a broker that is away, but the user of a command expects an error.
        connected.list_profiles(provider.partition(":")[0])
        self._verbose: bool = args.verbose
        self._client = exec_variables.program(args.command)
        self._credential, self.given = self._leased(connected, provider, delivery(args))

    def _leased(self, connected: "Broker", provider: str, asked: str | None) -> "tuple[Credential, Lease]":
        """Without an explicit delivery, a key is handed out only if no gateway runs. It is not handed out because a policy
        refuses a token, or because a provider has no list of requests."""
        from equabot_client.errors import DeliveryNotAllowed  # noqa: PLC0415

        credential = connected.credential(
            provider, delivery=asked or "brokered", client=self._client, on_rotate=self._rotated, on_end=self._ended
        )
        try:
            return credential, credential.lease()
        except DeliveryNotAllowed as refused:
            if asked is not None:
                raise
            why = refused
        credential.close()
        if why.metadata.get("cause") != "no_gateway":
            raise Failure(f"{why.reason}: {why.message}. With --delivery raw, the command would hold the key itself")
        try:
            return self._leased(connected, provider, "raw")
        except DeliveryNotAllowed:
            raise why from None  # the gateway is missing, not the right to the key

    def _rotated(self, lease: "Lease") -> None:
        if self._verbose and lease.delivery == "raw":
            complain(f"{lease.profile} was rotated; the command keeps its old key")

    def _ended(self, reason: str) -> None:
        """The command cannot get another token, so its lease is not kept any longer."""
        why = _ENDS.get(reason.lower(), f"for the reason {reason}")
        raw = self.given.delivery == "raw"
        rest = "the command still has the key" if raw else "its token is refused: start the command again"
        complain(f"the lease of {self.given.provider} has ended: {why}; {rest}")
        self._credential.close()


def _known(args: Namespace) -> "tuple[KnownProviders, Collection[str]]":
    """The known providers, and the variables that the configuration binds to profiles."""
    from equabot_cli.built_in_providers import BUILT_IN  # noqa: PLC0415

    if not configured(args):
        return BUILT_IN, ()
    try:
        local = args.program.local(args)
    except Failure:
        if addressed(args):  # the broker uses another configuration
            return BUILT_IN, ()
        raise
    return local.providers(), local.bound_variables()


def _environment(
    leases: Sequence["Lease"], args: Namespace, catalog: "KnownProviders", bound: Collection[str]
) -> Mapping[str, str]:
    """This process's environment with the variables of the leases. With a token it has no key; with a key it has no other key
    of the same provider."""
    from equabot_cli.exec_environment import screened, without_credentials  # noqa: PLC0415

    sdks = _sdks(args, leases, catalog)
    brought = exec_variables.merged(
        (
            lease.profile,
            exec_variables.variables(
                lease, provider=catalog.get(lease.provider), sdk=sdks.get(lease.provider), command=args.command
            ),
        )
        for lease in leases
    )
    brokered = [lease for lease in leases if lease.delivery == "brokered"]
    if not brokered:
        concerned = (*(catalog.get(lease.provider) for lease in leases), *sdks.values())
        given = without_credentials(environment(), filter(None, concerned))
    else:
        screen = screened(environment(), catalog, bound=bound)
        given = {**screen.kept, _DELIVERY: "brokered"}
        if screen.unnamed:
            complain(f"removed from the command's environment, because they look like credentials: {', '.join(screen.unnamed)}")
    given.update(brought)
    for lease in brokered:
        _past_proxies(given, urlsplit(lease.base_url).hostname or "")
        if name := exec_variables.unread(lease, provider=catalog.get(lease.provider), sdk=sdks.get(lease.provider)):
            complain(f"{lease.provider}: no known SDK reads {name}: the command must send its requests there by itself")
    return given


def _sdks(args: Namespace, leases: Sequence["Lease"], catalog: "KnownProviders") -> "Mapping[str, KnownProvider]":
    """The provider whose SDK's variables were requested, by the lease's provider."""
    from equabot_cli.built_in_providers import BUILT_IN  # noqa: PLC0415

    leased = {lease.provider for lease in leases}
    chosen: dict[str, KnownProvider] = {}
    for wanted in sorted(args.sdks):  # one for all providers comes first
        meant = catalog.get(wanted.provider)
        named = {meant.id if meant is not None else wanted.provider} if wanted.provider else leased
        if not named <= leased:
            raise Failure(f"--as {wanted.provider}={wanted.sdk}: the command has no lease of {wanted.provider!r}")
        if (sdk := BUILT_IN.get(wanted.sdk)) is not None:
            chosen.update(dict.fromkeys(named, sdk))
    return chosen


def _past_proxies(given: dict[str, str], host: str) -> None:
    """Requests to the gateway bypass the proxy: a proxy would see the token, and cannot reach the gateway or refuses it."""
    for name in ("no_proxy", "NO_PROXY"):
        known = given.get(name) or given.get(name.swapcase(), "")
        if host not in known.split(","):
            given[name] = f"{known},{host}".lstrip(",")
