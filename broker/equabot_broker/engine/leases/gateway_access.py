"""Requests through the gateway: authenticates the token, checks the rules, selects the credential, and applies the answer."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from equabot_broker.domain import lease_tokens
from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import InvalidArgument, NoUsableProfile, PolicyDenied, RefreshFailed, WebsocketRefused
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.concurrency import Concurrency
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.gateway_leases import GatewayLeases
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.table import whose
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.ports import Clock
from equabot_broker.routing.joining import received_by
from equabot_broker.routing.model_names import model_of
from equabot_broker.routing.request_rules import METHODS, narrowing, route, rules
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayUsed
from equabot_broker.telemetry.lease_events import OutcomeReported

_CHECKED: Final = 4096
"""The number of recent requests that are not recorded twice: Envoy may repeat a check within seconds."""
_Made = tuple[str, str, str, int, str, str]


@dataclass(frozen=True, slots=True)
class PermittedRequest:
    """A permitted request with its material.

    `request` is its public name: eight characters for this process, and a number. `path` is the checked path, which must be
    sent unchanged. `model` comes from the path or the lease. `client` is the client program, or empty.
    """

    lease: Lease
    held: HeldProfile
    provider: Provider
    secret: SecretValue
    request: str
    route: str
    path: str
    model: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestNames:
    """The names that identify a request when its answer arrives.

    `account`: the agent named an account in the request, which may be the reason of a refusal.
    """

    agent: str
    session: str
    lease: str
    provider: str
    profile: str
    version: int
    request: str
    method: str
    route: str
    model: str = ""
    account: bool = False
    client: str = ""


class GatewayAccess:
    """Checks every request through the gateway. A revocation and the outcome of a request apply to the next request."""

    def __init__(
        self,
        *,
        clock: Clock,
        events: Events,
        policies: Policies,
        registry: ProfileRegistry,
        resolver: Resolver,
        gateway_leases: GatewayLeases,
        failover: Failover,
        refresh_scheduler: RefreshScheduler,
        outcomes: Outcomes,
    ) -> None:
        self._clock = clock
        self._events = events
        self._policies = policies
        self._registry = registry
        self._resolver = resolver
        self._gateway_leases = gateway_leases
        self._failover = failover
        self._refresh_scheduler = refresh_scheduler
        self._outcomes = outcomes
        self._concurrency = Concurrency()
        self._process, self._numbers = secrets.token_hex(4), count(1)
        self._checked: dict[_Made, str] = {}

    def apply(self, policies: Policies) -> None:
        """Another configuration is in effect for the next requests."""
        self._policies = policies

    def bearer(self, token: str) -> Lease:
        """The lease of a token. Raises AgentSuspended, LeaseNotFound, LeaseExpired, ShuttingDown."""
        return self._gateway_leases.bearer(lease_tokens.digest(token))

    async def use(
        self,
        lease: Lease,
        provider: Provider,
        *,
        method: str,
        path: str,
        within: Callable[[], float],
        check: str = "",
        joined: bool = True,
        client: str = "",
        websocket: bool = False,
    ) -> PermittedRequest:
        """Checks and records the request, and selects its credential.

        `path` is the normalised path after the gateway's `/<provider>`. If a login must be refreshed first, this waits at most
        `within` seconds. `check` is the gateway's name of the request: a repeated check is recorded once. `joined`: the
        returned path is the one that will be sent. `client` is the client program from `Provider.client_of`. `websocket`: the
        request asks for a WebSocket.

        Raises PolicyDenied, WebsocketRefused, InvalidArgument, RateLimited, NoUsableProfile, ProfileNotFound, ReauthRequired,
        RefreshFailed, SourceNotSynced, AuditUnavailable. If the lease ends during the wait, raises AgentSuspended,
        LeaseNotFound, LeaseExpired, ShuttingDown.
        """
        received = received_by(provider, method, path, joined=joined)
        self._check(lease, provider, method, received, websocket=websocket)
        counting = partial(
            self._concurrency.begin, lease.agent, most=self._policies.of(lease.agent).max_requests, now=self._clock.steady()
        )
        waiting = f"waiting {next(self._numbers)}"
        counting(waiting)
        try:
            model = model_of(path) or lease.model
            resolving = partial(self._gateway_leases.resolve, model=model, client=client)
            resolved, held = await self._resolved(lease, resolving, within)
            if (secret := held.profile.secret) is None:
                raise NoUsableProfile(f"profile {held.profile.id!r} cannot be used: {held.profile.fault}")
            shown = route(path)
            request = self._recorded((check, resolved.id, held.profile.id, held.version, method, shown), resolved)
        finally:
            self._concurrency.end(lease.agent, waiting)
        counting(request)  # it replaces the waiting request
        return PermittedRequest(resolved, held, provider, secret, request, shown, received, model, client)

    async def _resolved(
        self, lease: Lease, resolve: Callable[[Lease], tuple[Lease, HeldProfile]], within: Callable[[], float]
    ) -> tuple[Lease, HeldProfile]:
        """Resolves the lease, after a refresh if necessary. The lease may have been revoked during the wait."""
        try:
            return resolve(lease)
        except RefreshFailed:
            return await self._refresh_scheduler.ask_until_refreshed(
                lambda: resolve(self._gateway_leases.bearer(lease.token)), within=within()
            )

    def disconnected(self) -> None:
        """Ends all requests, because no Envoy is connected any more."""
        self._concurrency.forget()

    def _recorded(self, made: _Made, lease: Lease) -> str:
        """Records the request, and returns its name. Raises AuditUnavailable if a required record cannot be written."""
        check, _, profile, _, method, shown = made
        if check and (known := self._checked.get(made)):
            return known
        request = f"{self._process}{next(self._numbers):08x}"
        self._events.emit(GatewayAuthorized(profile=profile, request=request, method=method, route=shown, **whose(lease)))
        self._checked[made] = request
        if len(self._checked) > _CHECKED:
            del self._checked[next(iter(self._checked))]
        return request

    def answered(self, used: RequestNames, answer: ProviderAnswer) -> None:
        """Records the vendor's answer, and applies it if the profile still has the material of the request."""
        self._concurrency.end(used.agent, used.request)
        self._events.emit(
            GatewayUsed(
                agent=used.agent,
                session=used.session,
                provider=used.provider,
                profile=used.profile,
                lease=used.lease,
                request=used.request,
                method=used.method,
                route=used.route,
                status=answer.status,
                sent=answer.sent,
                received=answer.received,
                seconds=answer.seconds,
            )
        )
        outcome = answer.outcome
        if outcome is None and not answer.doubts_client:
            return
        self._registry.tick()
        found = self._registry.find(used.agent, used.profile)
        if found is None or found[1].held.version != used.version:
            return
        began = answer.began or self._clock.now() - answer.seconds
        note = partial(
            self._outcomes.note,
            found[1].held,
            agent=used.agent,
            seen=True,
            began=began,
            model=used.model,
            client=used.client,
        )
        if outcome is Outcome.OK:
            # The usual case: `GatewayUsed` already records it.
            note(outcome)
            return
        if outcome is None:
            note(Outcome.FORMAT)
            self._move_on(used)
            return
        self._events.emit(
            OutcomeReported(
                agent=used.agent,
                provider=used.provider,
                profile=used.profile,
                outcome=outcome.value,
                session=used.session,
                lease=used.lease,
            )
        )
        sure = answer.sure and not used.account and not self._only_looks(used)
        note(outcome, retry_after=answer.retry_after, sure=sure)
        self._move_on(used)

    def _move_on(self, used: RequestNames) -> None:
        """Moves the lease now: the next request could arrive after the cooldown, and get the same answer again."""
        with suppress(RefreshFailed):
            self._failover.moved_on(used.agent, used.lease, profile=used.profile, version=used.version, model=used.model)

    def _only_looks(self, used: RequestNames) -> bool:
        """Whether the request only reads information from a vendor of models: its refusal says little about the credential.

        A key that may not list models may still use them. A WebSocket starts with a GET, but uses a model.
        """
        provider = self._resolver.catalog.providers.get(used.provider)
        if provider is None or used.method not in ("GET", "HEAD") or not (provider.api or "/models" in used.route):
            return False
        return not rules(provider.websockets, provider.base_path).allow("GET", received_by(provider, "GET", used.route))

    def _check(self, lease: Lease, provider: Provider, method: str, received: str, *, websocket: bool) -> None:
        if lease.provider != provider.id:
            raise PolicyDenied(f"the lease token is for provider {lease.provider!r}, not for {provider.id!r}")
        if method not in METHODS:
            raise InvalidArgument(f"the gateway does not support this method: use one of {', '.join(sorted(METHODS))}")
        base = provider.base_path
        if not rules(provider.requests, base).allow(method, received):
            raise PolicyDenied(f"{method} is not allowed on this path of {provider.id}: see providers.{provider.id}.requests")
        if not narrowing(self._policies.of(lease.agent).requests, base).allow(method, received):
            raise PolicyDenied(f"agent {lease.agent!r} may not send this request: see agents.{lease.agent}.requests")
        if websocket and not rules(provider.websockets, base).allow(method, received):
            raise WebsocketRefused(
                f"no WebSocket is allowed on this path of {provider.id}: send the request without an upgrade,"
                f" or list the path in providers.{provider.id}.websockets"
            )
