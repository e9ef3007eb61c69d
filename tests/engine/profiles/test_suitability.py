"""Which credential a program gets, where the vendor takes one of them from a single program alone."""

from dataclasses import replace

import pytest

from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.provider import Mode
from equabot_broker.engine.leases.gateway_access import RequestNames
from equabot_broker.engine.leases.messages import LeaseRequest
from tests.fakes.engine import ANYTHING, Engine, profile

LOGIN, KEY = "anthropic:claude-cli", "anthropic:key"
TOKEN = "sk-ant-oat01-" + "x" * 80
BOTH = frozenset(Delivery)
CLAUDE = "claude-code"


def made(*, order: tuple[str, ...] = (), key: bool = True, agents: tuple[str, ...] = ("main",)) -> Engine:
    """A Claude login, and an API key of the same vendor."""
    engine = Engine(order={"anthropic": order} if order else {}, deliveries=BOTH, agents=dict.fromkeys(agents, ANYTHING))
    engine.put(profile(LOGIN, TOKEN, mode=Mode.OAUTH), *([profile(KEY, "sk-ant-api03-key")] if key else []))
    return engine


def chosen(engine: Engine, client: str = "", *, profile: str = "", session: str = "") -> str:
    asked = LeaseRequest(provider="anthropic", client=client, profile=profile, session=session)
    return engine.lease_service.acquire("main", asked).lease.profile


def cool(engine: Engine, profile_id: str, outcome: Outcome = Outcome.RATE_LIMIT) -> None:
    held = engine.registry.find("main", profile_id)
    assert held is not None
    engine.outcomes.note(held[1].held, outcome, agent="main")


def brokered(engine: Engine, client: str = "", agent: str = "main") -> Lease:
    return engine.lease_service.acquire(agent, LeaseRequest(provider="anthropic", client=client, delivery="brokered")).lease


def answered(engine: Engine, lease: Lease, status: int, client: str = "") -> str:
    """One request through the gateway; returns the profile that it was made with."""
    settled, held = engine.gateway_leases.resolve(lease, client=client)
    used = RequestNames(
        agent=lease.agent, session="", lease=lease.id, provider="anthropic", profile=held.profile.id, version=held.version,
        request="r", method="POST", route="/v1/messages", client=client,
    )  # fmt: skip
    engine.gateway_access.answered(used, ProviderAnswer(status=status))
    return settled.profile


@pytest.mark.parametrize(
    ("client", "profile_id"), [("", KEY), ("python", KEY), ("claude", LOGIN), (CLAUDE, LOGIN), ("Claude", KEY)]
)
async def test_a_claude_login_goes_to_claude_code_and_a_key_to_other_programs(client: str, profile_id: str) -> None:
    """F7, C5: an API key is preferred for a program that is not known to be Claude Code."""
    engine = made()
    assert chosen(engine, client) == profile_id
    found = {row.id: row.next for row in engine.profile_statuses.of("main", "anthropic", client=client)}
    assert found == {LOGIN: profile_id == LOGIN, KEY: profile_id == KEY}


async def test_a_login_that_is_named_goes_to_every_program() -> None:
    """F7, C5: by its id, by an order, by a pin; none of them is remarked on."""
    assert chosen(made(), profile=LOGIN) == LOGIN
    engine = made(order=(LOGIN, KEY))
    assert chosen(engine) == LOGIN
    engine = made()
    engine.resolver.pin("main", "s", "anthropic", LOGIN, strict=False)
    granted = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", session="s"))
    assert (granted.lease.profile, granted.notice) == (LOGIN, "")


async def test_a_login_alone_is_given_with_the_commands_to_run() -> None:
    """F7: the grant and the list say that it is for Claude Code, and how to name it all the same."""
    engine = made(key=False)
    granted = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic"))
    order = f"equabot models auth order set --provider anthropic {LOGIN}"
    assert granted.lease.profile == LOGIN
    assert "from claude-code only" in granted.notice
    assert order in granted.notice
    (row,) = engine.profile_statuses.of("main", "anthropic")
    assert order in row.reason
    assert engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", client=CLAUDE)).notice == ""
    assert engine.profile_statuses.of("main", "anthropic", client=CLAUDE)[0].reason == "ok"


async def test_other_programs_get_a_key_that_cools_down_before_a_login() -> None:
    """C5: the vendor would refuse them the login; a key that is disabled leaves nothing else."""
    engine = made()
    cool(engine, KEY)
    assert chosen(engine) == KEY
    for _ in range(2):
        engine.clock.advance(MINUTE)
        cool(engine, KEY, Outcome.BILLING)
    assert chosen(engine) == LOGIN


async def test_one_session_runs_claude_code_and_other_programs() -> None:
    """C5: each keeps its own profile."""
    engine = made()
    seen = [chosen(engine, client, session="s") for client in ("", CLAUDE, "", CLAUDE)]
    assert seen == [KEY, LOGIN, KEY, LOGIN]


@pytest.mark.parametrize("secret", ["sk-ant-api03-another", "token-of-a-proxy"])
async def test_any_other_token_is_for_every_program(secret: str) -> None:
    """A token of another form may be one of a proxy in front of the vendor."""
    engine = Engine()
    engine.put(profile(LOGIN, secret, mode=Mode.TOKEN), profile(KEY, "sk-ant-api03-key"))
    assert chosen(engine) == LOGIN


# -- through the gateway -----------------------------------------------------------------------------------------------


async def test_each_request_gets_the_credential_for_its_program() -> None:
    """C5: one lease token may be in the environment of many programs."""
    engine = made()
    lease = brokered(engine)
    seen = []
    for client in ("", CLAUDE, CLAUDE, ""):
        seen.append(answered(engine, lease, 200, client))
        lease = next(engine.lease_admin.active())
    assert seen == [KEY, LOGIN, LOGIN, KEY]


async def test_a_refused_program_fails_over_to_a_key_though_the_order_names_the_login() -> None:
    """C5: 400 puts the login last for other programs; Claude Code keeps it; it is tried again after an hour."""
    engine = made(order=(LOGIN, KEY))
    lease = brokered(engine)
    assert lease.profile == LOGIN
    answered(engine, lease, 400)
    assert next(engine.lease_admin.active()).profile == KEY
    assert (chosen(engine), chosen(engine, CLAUDE)) == (KEY, LOGIN)
    engine.clock.advance(HOUR)
    assert chosen(engine) == LOGIN


async def test_a_malformed_request_does_not_take_a_login_that_has_served() -> None:
    """C5: 400 is also the answer to a request that is wrong; a login that has served such a program stays."""
    engine = made(order=(LOGIN, KEY))
    lease = brokered(engine)
    for status in (200, 400, 400):
        assert answered(engine, lease, status) == LOGIN
    assert chosen(engine) == LOGIN


async def test_a_success_takes_a_refusal_back_and_new_material_as_well() -> None:
    """Every state has a way back."""
    engine = made(order=(LOGIN,))
    lease = brokered(engine)
    answered(engine, lease, 400)
    assert engine.resolver.plan("main", "anthropic").unsuited == {LOGIN}
    answered(engine, lease, 200)
    assert engine.resolver.plan("main", "anthropic").unsuited == set()
    engine = made(order=(LOGIN, KEY))
    answered(engine, brokered(engine), 400)
    engine.put(profile(LOGIN, f"{TOKEN}y", mode=Mode.OAUTH), profile(KEY, "sk-ant-api03-key"))
    assert chosen(engine) == LOGIN


async def test_refusal_applies_to_one_agent() -> None:
    """C5: an agent that sends malformed requests moves its own requests alone."""
    engine = made(order=(LOGIN, KEY), agents=("main", "ann"))
    answered(engine, brokered(engine), 400)
    assert chosen(engine) == KEY
    assert brokered(engine, agent="ann").profile == LOGIN


async def test_a_refusal_of_a_key_or_of_claude_code_means_the_request() -> None:
    """400 says nothing of a credential that is for the program."""
    engine = made(order=(KEY, LOGIN))
    answered(engine, brokered(engine), 400)
    assert chosen(engine) == KEY
    answered(engine, brokered(engine, CLAUDE), 400, CLAUDE)
    assert engine.resolver.plan("main", "anthropic", CLAUDE).unsuited == set()


async def test_a_refusal_that_an_agent_reports_counts_likewise() -> None:
    """C5: of a raw lease the gateway sees nothing."""
    engine = made(order=(LOGIN, KEY))
    lease = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic")).lease
    assert engine.lease_service.report("main", lease.id, Outcome.FORMAT) is True
    assert next(engine.lease_admin.active()).profile == KEY
    claude = engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", client=CLAUDE)).lease
    assert engine.lease_service.report("main", claude.id, Outcome.FORMAT) is False


async def test_a_lease_that_names_the_login_keeps_it() -> None:
    """However the vendor answers."""
    engine = made()
    lease = engine.lease_service.acquire("main", LeaseRequest(profile=LOGIN, delivery="brokered")).lease
    for client in ("", CLAUDE, ""):
        assert answered(engine, lease, 400, client) == LOGIN
    assert replace(lease, client="") == lease
