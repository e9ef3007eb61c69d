"""The `Admin` service: every agent, for the users of the admin socket."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from equabot.broker.v1 import admin_pb2 as pb
from equabot_broker.diagnosis.findings import findings
from equabot_broker.domain.errors import InvalidArgument, PolicyDenied, ProfileNotFound, SourceNotSynced
from equabot_broker.domain.known_names import no_profile
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Policies
from equabot_broker.engine.health import Readiness
from equabot_broker.engine.leases.admin import LeaseAdmin
from equabot_broker.engine.leases.suspension_control import SuspensionControl
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.order_override import OrderOverrides
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.ports import AuditSink, Configuration, StateStore
from equabot_broker.rpc import requests
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.rpc.convert import agent_status, finding, lease_summary, profile_status, source_status, timestamp
from equabot_broker.telemetry.broker_events import Administered
from equabot_broker.telemetry.events import Events

_PAGE: Final = 1000
_FAULTS: Final = 1000


class AdminServicer:
    """Answers the operator. `started_at` is in seconds since the epoch. `identity_fault` returns why callers over TCP cannot
    be identified now, and what to do; empty if they can."""

    def __init__(
        self,
        *,
        lease_admin: LeaseAdmin,
        resolver: Resolver,
        order_overrides: OrderOverrides,
        registry: ProfileRegistry,
        ingest: Ingest,
        readiness: Readiness,
        suspensions: Suspensions,
        suspension_control: SuspensionControl,
        policies: Policies,
        store: StateStore,
        events: Events,
        audit: AuditSink,
        configuration: Configuration,
        identity_fault: Callable[[], str] = lambda: "",
        started_at: float,
    ) -> None:
        self._lease_admin = lease_admin
        self._resolver = resolver
        self._order_overrides = order_overrides
        self._registry = registry
        self._ingest = ingest
        self._readiness = readiness
        self._suspensions = suspensions
        self._suspension_control = suspension_control
        self._policies = policies
        self._store = store
        self._events = events
        self._audit = audit
        self._configuration = configuration
        self._identity_fault = identity_fault
        self._started_at = started_at

    def apply(self, policies: Policies) -> None:
        """Applies a new configuration."""
        self._policies = policies

    def service(self) -> Service:
        """The handlers for a server."""
        return Service(
            pb.DESCRIPTOR.services_by_name["Admin"],
            {
                "ListLeases": self.list_leases,
                "RevokeLeases": self.revoke_leases,
                "ListAllProfiles": self.list_all_profiles,
                "GetOrder": self.get_order,
                "SetOrder": self.set_order,
                "ClearOrder": self.clear_order,
                "ClearCooldown": self.clear_cooldown,
                "Reload": self.reload,
                "ListAgents": self.list_agents,
                "SuspendAgent": self.suspend_agent,
                "ResumeAgent": self.resume_agent,
                "AcceptAuditLog": self.accept_audit_log,
                "Diagnose": self.diagnose,
            },
        )

    async def list_leases(self, request: pb.ListLeasesRequest, call: Call) -> pb.ListLeasesResponse:
        """Sends a page of the active leases. A lease that starts or ends between two pages affects no other lease of the
        list."""
        size, after = requests.page(request, largest=_PAGE)
        agent, provider, profile = self._filter(request)
        rest = (
            lease
            for lease in self._lease_admin.active(agent=agent, provider=provider, profile=profile)
            if (lease.issued_at, lease.id) > after
        )
        page = heapq.nsmallest(size + 1, rest, key=lambda lease: (lease.issued_at, lease.id))
        more = requests.page_token(page[size - 1].issued_at, page[size - 1].id) if len(page) > size else ""
        offset = self._lease_admin.offset()
        return pb.ListLeasesResponse(
            leases=(lease_summary(lease, offset=offset) for lease in page[:size]), next_page_token=more
        )

    async def revoke_leases(self, request: pb.RevokeLeasesRequest, call: Call) -> pb.RevokeLeasesResponse:
        """Ends the leases that match."""
        agent, provider, profile = self._filter(request)
        lease_id = requests.text(request.lease_id, "lease_id")
        revoked = self._lease_admin.revoke_matching(lease_id=lease_id, agent=agent, provider=provider, profile=profile)
        # A name that matched nothing may be anything, even a misplaced secret.
        about = {"agent": agent, "provider": provider, "profile": profile, "lease": lease_id} if revoked else {}
        self._did("RevokeLeases", **about, count=revoked)
        return pb.RevokeLeasesResponse(revoked=revoked)

    async def list_all_profiles(self, request: pb.ListAllProfilesRequest, call: Call) -> pb.ListAllProfilesResponse:
        """Sends the candidates as each agent would see them, without agents that may not use the requested provider."""
        asked, provider = requests.text(request.agent, "agent"), self._provider(request.provider)
        if asked:
            self._policies.check_named(asked, error=PolicyDenied)
        answer = pb.ListAllProfilesResponse()
        for agent in [asked] if asked else sorted(self._policies.agents):
            if not provider or self._policies.of(agent).allows_provider(provider):
                statuses = self._readiness.availability.statuses(agent, provider)
                answer.agents.add(agent=agent, profiles=map(profile_status, statuses))
        return answer

    async def get_order(self, request: pb.GetOrderRequest, call: Call) -> pb.Order:
        """Sends the override."""
        agent, provider = self._agent_and_provider(request)
        return pb.Order(agent=agent, provider=provider, profiles=self._resolver.order(agent, provider))

    async def set_order(self, request: pb.SetOrderRequest, call: Call) -> pb.Order:
        """Stores an override."""
        agent, provider = self._agent_and_provider(request)
        stored = await self._order_overrides.set(agent, provider, requests.order(request))
        self._did("SetOrder", agent=agent, provider=provider, profiles=tuple(stored), count=len(stored))
        return pb.Order(agent=agent, provider=provider, profiles=stored)

    async def clear_order(self, request: pb.ClearOrderRequest, call: Call) -> pb.Order:
        """Removes an override."""
        agent, provider = self._agent_and_provider(request)
        await self._order_overrides.set(agent, provider, ())
        self._did("ClearOrder", agent=agent, provider=provider)
        return pb.Order(agent=agent, provider=provider)

    async def clear_cooldown(self, request: pb.ClearCooldownRequest, call: Call) -> pb.ClearCooldownResponse:
        """Ends the cooldown, disable and rejection of a profile."""
        profile = self._profile("", requests.required(request.profile, "profile"))
        keys = [key for key, candidate in self._registry.all() if candidate.id == profile]
        if request.version < 0:
            raise InvalidArgument(f"version {request.version} is not valid for a profile: use one that ListProfiles returns")
        ended = {word for key in keys for word in self._registry.clear(key, version=request.version)}
        self._store.flush()
        self._did("ClearCooldown", profile=profile, count=len(keys))
        return pb.ClearCooldownResponse(ended=sorted(ended))

    async def reload(self, request: pb.ReloadRequest, call: Call) -> pb.ReloadResponse:
        """Reloads the configuration, and then reads every source."""
        self._did("Reload")
        done = await self._configuration.reload("admin")
        if done.faults or done.refusal:
            return pb.ReloadResponse(sources=self._sources(), faults=done.faults[:_FAULTS], refusal=done.refusal)
        if not await self._ingest.reread():
            raise SourceNotSynced("the configuration is in effect, but some sources were not read again in time: see diagnose")
        return pb.ReloadResponse(sources=self._sources(), changes=done.changes[:_FAULTS], revoked=done.ended)

    async def list_agents(self, request: pb.ListAgentsRequest, call: Call) -> pb.ListAgentsResponse:
        """Sends every agent that is configured or suspended."""
        return pb.ListAgentsResponse(agents=self._agents(self._suspension_control.states(), self._lease_admin.active()))

    async def suspend_agent(self, request: pb.SuspendAgentRequest, call: Call) -> pb.SuspendAgentResponse:
        """Suspends an agent."""
        agent, reason = requests.required(request.agent, "agent"), requests.remark(request.reason, "reason")
        ended = await self._suspension_control.suspend(agent, reason)
        return pb.SuspendAgentResponse(agent=self._agent(agent), revoked=ended)

    async def resume_agent(self, request: pb.ResumeAgentRequest, call: Call) -> pb.ResumeAgentResponse:
        """Resumes an agent."""
        agent = requests.required(request.agent, "agent")
        resumed = await self._suspension_control.resume(agent)
        return pb.ResumeAgentResponse(agent=self._agent(agent), resumed=resumed)

    async def accept_audit_log(self, request: pb.AcceptAuditLogRequest, call: Call) -> pb.AcceptAuditLogResponse:
        """Accepts the state of the audit log that no anchor confirms."""
        return pb.AcceptAuditLogResponse(accepted=self._audit.accept())

    async def diagnose(self, request: pb.DiagnoseRequest, call: Call) -> pb.DiagnoseResponse:
        """Sends the sources, the findings and the counts."""
        found = findings(
            sources=self._ingest.states,
            candidates=(self._registry.judge(key) for key, _ in self._registry.all()),
            shadowed=self._ingest.shadowed,
            unmet=self._readiness.unmet(),
            store_fault=self._store.fault,
            audit_fault=self._audit.fault,
            audit_doubt=self._audit.doubt,
            anchor_fault=self._audit.anchor_write_fault,
            identity_fault=self._identity_fault(),
            suspensions=self._suspensions.all,
            add=self._resolver.explanations.how_to_add,
            configuration=await self._configuration.doubts(),
        )
        leases, streams = self._lease_admin.count()
        return pb.DiagnoseResponse(
            sources=self._sources(),
            findings=map(finding, found),
            leases=leases,
            streams=streams,
            started_at=timestamp(self._started_at),
        )

    def _agent(self, agent: str) -> pb.AgentStatus:
        return next(self._agents([agent], self._lease_admin.active(agent=agent)))

    def _agents(self, agents: Iterable[str], leases: Iterable[Lease]) -> Iterator[pb.AgentStatus]:
        held = Counter((lease.agent, lease.streaming) for lease in leases)
        for agent in agents:
            streams = held[agent, True]
            policy, suspension = self._policies.agents.get(agent), self._suspensions.of(agent)
            yield agent_status(agent, policy, suspension, leases=held[agent, False] + streams, streams=streams)

    def _did(self, action: str, **what: Any) -> None:
        self._events.emit(Administered(action=action, **what))

    def _sources(self) -> list[pb.SourceStatus]:
        return [source_status(state, stale_budget=self._ingest.stale_budget) for state in self._ingest.states]

    def _provider(self, name: str) -> str:
        return self._resolver.resolve_names(requests.text(name, "provider"), "")[0] if name else ""

    def _filter(self, request: pb.ListLeasesRequest | pb.RevokeLeasesRequest) -> tuple[str, str, str]:
        """The filter. A name that nothing has is refused, because an empty list would look like an answer."""
        agent, provider = requests.text(request.agent, "agent"), self._provider(request.provider)
        profile = requests.text(request.profile, "profile")
        if agent and not any(self._lease_admin.active(agent=agent)):
            self._policies.check_named(agent, self._suspensions.all)
        return agent, provider, self._profile(provider, profile, leased=True) if profile else ""

    def _profile(self, provider: str, written: str, *, leased: bool = False) -> str:
        """The id of a profile that a source has or that a lease uses. Raises ProfileNotFound."""
        provider, profile = self._resolver.resolve_names(provider, written)
        ids = {candidate.id for _, candidate in self._registry.all()}
        if profile not in ids and not (leased and any(self._lease_admin.active(profile=profile))):
            raise ProfileNotFound(no_profile(profile, (known for known in ids if known.startswith(f"{provider}:"))))
        return profile

    def _agent_and_provider(self, request: pb.GetOrderRequest | pb.SetOrderRequest | pb.ClearOrderRequest) -> tuple[str, str]:
        agent = requests.required(request.agent, "agent")
        self._policies.check_named(agent, error=PolicyDenied)
        return agent, self._provider(requests.required(request.provider, "provider"))
