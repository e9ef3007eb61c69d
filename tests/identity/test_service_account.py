"""Callers who show a token: what is asked once, what is remembered for how long, and what is not."""

import asyncio

import pytest

from equabot_broker.domain.callers import CallerProof, Callers, Identified
from equabot_broker.domain.errors import BrokerError, IdentityUnchecked, PolicyDenied, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import AccountToken
from equabot_broker.identity.service_account import ServiceAccounts
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import Issuer

ISSUER = Issuer("ES256")
CALLERS = Callers(accounts={"agents/reviewer": "reviewer"})


class ScriptedCheck:
    """Believes every token, unless `error` is set; waits while `holding`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: BrokerError | None = None
        self.news = asyncio.Event()
        self.going = asyncio.Event()
        self.going.set()

    async def account(self, said: AccountToken) -> str:
        self.asked.append(said.account)
        self.news.set()
        await self.going.wait()
        if self.error is not None:
            raise self.error
        return said.account


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def check() -> ScriptedCheck:
    return ScriptedCheck()


@pytest.fixture
async def accounts(check: ScriptedCheck, clock: FakeClock) -> ServiceAccounts:
    return ServiceAccounts(check, CALLERS, clock=clock, audience="equabot")


def shown(account: str = "agents/reviewer", *, lasts: float = 3600.0, audience: str = "equabot") -> CallerProof:
    return CallerProof(token=SecretValue(ISSUER.token(account, audiences=[audience], expires_at=1_800_000_000.0 + lasts)))


async def test_a_token_that_held_holds_for_a_minute(accounts: ServiceAccounts, check: ScriptedCheck, clock: FakeClock) -> None:
    """The cluster is asked once a minute and not once a call; and no later than the token's own end."""
    one = shown()
    assert await accounts.identify(one) == Identified(agent="reviewer", until=5060.0)
    clock.advance(59)
    assert await accounts.identify(one) == Identified(agent="reviewer", until=5060.0)
    assert len(check.asked) == 1
    clock.advance(1)
    assert (await accounts.identify(one)).until == 5120.0
    assert len(check.asked) == 2
    assert (await accounts.identify(shown(lasts=90))).until == 5090.0


async def test_a_revoked_token_is_refused_once_its_minute_is_over(
    accounts: ServiceAccounts, check: ScriptedCheck, clock: FakeClock
) -> None:
    """And asked about again after seconds: what was refused may be good after all."""
    one = shown()
    await accounts.identify(one)
    check.error = Unidentified("revoked")
    clock.advance(60)
    for _ in range(3):
        with pytest.raises(Unidentified, match="revoked"):
            await accounts.identify(one)
    assert len(check.asked) == 2
    check.error = None
    clock.advance(5)
    assert (await accounts.identify(one)).agent == "reviewer"


async def test_calls_with_one_token_share_one_check(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """A hundred streams that open at once; another token's check does not wait for them."""
    check.going.clear()
    one, other = shown(), shown(lasts=7200)
    waiting = [asyncio.ensure_future(accounts.identify(one)) for _ in range(100)]
    waiting.append(asyncio.ensure_future(accounts.identify(other)))
    async with asyncio.timeout(60):
        while len(check.asked) < 2:
            check.news.clear()
            await check.news.wait()
    check.going.set()
    assert {found.agent for found in await asyncio.gather(*waiting)} == {"reviewer"}
    assert len(check.asked) == 2


async def test_a_caller_that_goes_does_not_take_the_others_along(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """The next one asks in its place."""
    check.going.clear()
    one = shown()
    first = asyncio.ensure_future(accounts.identify(one))
    await check.news.wait()
    second = asyncio.ensure_future(accounts.identify(one))
    await asyncio.sleep(0)
    first.cancel()
    check.going.set()
    assert (await second).agent == "reviewer"
    assert len(check.asked) == 2


async def test_while_no_check_is_possible_known_callers_stay_known(
    accounts: ServiceAccounts, check: ScriptedCheck, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """To the end of its minute; who was not is refused for now. Failed checks are a second apart, and said once."""
    caplog.set_level("INFO")
    known, new = shown(), shown(lasts=7200)
    await accounts.identify(known)
    check.error = IdentityUnchecked("the API server is away", retry_after=2.0)
    assert (await accounts.identify(known)).agent == "reviewer"
    for _ in range(3):
        with pytest.raises(IdentityUnchecked, match="away") as raised:
            await accounts.identify(new)
        assert raised.value.retry_after == 2.0
    assert len(check.asked) == 2
    assert accounts.fault == "the API server is away"
    clock.advance(60)
    for each in (known, new):
        with pytest.raises(IdentityUnchecked):
            await accounts.identify(each)
    check.error = None
    clock.advance(1)
    await accounts.identify(new)
    assert accounts.fault == ""
    assert [record.getMessage() for record in caplog.records] == [
        "the API server is away", "service-account tokens are checked again"
    ]  # fmt: skip


async def test_a_good_token_of_an_unknown_account_is_denied(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """The caller is known: PolicyDenied, and not Unidentified."""
    with pytest.raises(PolicyDenied) as raised:
        await accounts.identify(shown("other/reviewer"))
    assert type(raised.value) is PolicyDenied
    assert check.asked == ["other/reviewer"]


async def test_an_unusable_token_is_refused_without_a_check(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """None at all, garbage, one for another audience: strangers do not make the broker work."""
    for one, words in (
        (CallerProof(), "has no token"),
        (CallerProof(certificate="PEM"), "has no token"),
        (CallerProof(token=SecretValue("garbage")), "not a JSON Web Token"),
        (shown(audience="https://kubernetes.default.svc"), "not for audience 'equabot'"),
    ):
        with pytest.raises(Unidentified, match=words):
            await accounts.identify(one)
    assert check.asked == []


async def test_a_refusal_carries_no_history(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """Each caller gets its own error, which has nothing of earlier callers."""
    check.error = Unidentified("no")
    raised = []
    for _ in range(2):
        with pytest.raises(Unidentified) as found:
            await accounts.identify(shown())
        raised.append(found.value)
    assert raised[0] is not raised[1]
    assert raised[1].__context__ is None


async def test_what_is_remembered_is_bounded(accounts: ServiceAccounts, check: ScriptedCheck) -> None:
    """A caller that sends many tokens makes the broker forget old ones, and has no other effect."""
    check.error = Unidentified("no")
    for number in range(4200):
        said = SecretValue(f"{ISSUER.token()[:-10]}{number:08}AA")
        with pytest.raises(Unidentified):
            await accounts.identify(CallerProof(token=said))
    assert len(accounts._verdicts) == 4096
    assert len(accounts._turns) == 0


async def test_no_token_is_kept(accounts: ServiceAccounts) -> None:
    """A digest is, which only this process could make."""
    one = shown()
    assert one.token is not None
    await accounts.identify(one)
    kept = repr(vars(accounts))
    pieces = one.token.reveal().split(".")
    assert not any(piece[:16] in kept for piece in pieces)
