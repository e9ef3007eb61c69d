"""Workloads' identities: files that are written anew, and vendors that exchange what is in them, over real HTTP."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.config.vendors import Known
from equabot_broker.domain.material import SourceFault, UnitsListed
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.oauth.refreshing import Blame, RefreshFailure
from equabot_broker.oauth.workload import SIZE_MAX, Workload
from equabot_broker.schema.reading import FaultReport
from equabot_broker.sources.workload import Workloads
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from tests.fakes.following import following
from tests.fakes.identity_exchange import VENDORS, IdentityExchange, Issuer
from tests.fakes.volume import Volume

FIELDS = {
    "anthropic": ("federation_rule_id", "organization_id", "service_account_id"),
    "openai": ("identity_provider_id", "service_account_id"),
    "openrouter": ("federation_policy_id",),
}


@pytest.fixture
def vendors() -> Iterator[IdentityExchange]:
    with IdentityExchange(Issuer().keys) as serving:
        yield serving


class TokenFile:
    """A file with an identity token."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put(Issuer().token())

    def put(self, token: str) -> None:
        self.path.write_text(token)

    def text(self) -> str:
        return self.path.read_text()

    def remove(self) -> None:
        self.path.unlink()

    def close(self) -> None:
        self.path.chmod(0)


@pytest.fixture
def token_file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "token")


def workloads(vendors: IdentityExchange, file: Path, *names: str, within: float = 10.0, **told: str) -> Workloads:
    """The source of a workload at each of these vendors, whose exchanges are asked."""
    urls = {vendor: {"token_url": f"{vendors.url}/{vendor}"} for vendor in VENDORS}
    made = [
        Workload(
            profile=f"{name}:pod",
            provider=name,
            token_file=str(file),
            fields={field: VENDORS[name].fields[field] for field in FIELDS[name]} | told,
        )
        for name in names or ("anthropic",)
    ]
    endpoint = HttpTokenEndpoint(within=within, connect_within=1.0)
    return Workloads(made, catalog=Known(urls, FaultReport()).catalog, clock=SystemClock(), endpoint=endpoint)


async def held(source: Workloads) -> tuple[Profile, tuple[SourceFault, ...]]:
    """What the source says now of its one workload."""
    async with following(source) as events:
        event = await events.event()
    assert isinstance(event, UnitsListed)
    [unit] = event.units
    [profile] = unit.profiles
    return profile, unit.faults


async def failure(source: Workloads, profile: str = "anthropic:pod") -> RefreshFailure:
    """Why the exchange came to nothing."""
    failed = await source.exchange(profile)
    assert failed is not None
    assert failed.blame is Blame.TRANSIENT
    return failed


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_identity_is_exchanged_as_its_vendor_wants(
    vendors: IdentityExchange, token_file: TokenFile, vendor: str
) -> None:
    """The vendor checks every field and the signature; what it gives is the profile's secret for as long as it says."""
    source, clock = workloads(vendors, token_file.path, vendor), SystemClock()
    before, began = await held(source), clock.now()
    assert await source.exchange(f"{vendor}:pod") is None
    profile, faults = await held(source)
    assert (profile.secret, profile.fault, faults) == (SecretValue(vendors.given[0]), "", ())
    assert (profile.mode, profile.workload) == (Mode.WIF, True)
    assert profile.issued_at is not None
    assert began <= profile.issued_at <= clock.now()
    assert profile.expires_at == profile.issued_at + vendors.life
    assert before[0].secret is None
    assert before[0].fault == "its identity token was not exchanged yet; a running broker exchanges it"


async def test_everything_is_there_from_the_beginning(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """One unit a workload; a success tells of itself."""
    source = workloads(vendors, token_file.path, *VENDORS)
    async with following(source) as events:
        assert await events.next() == {f"{vendor}:pod": {f"{vendor}:pod": "!"} for vendor in VENDORS}
        assert events.silent
        await source.exchange("openai:pod")
        second = await events.next()
    assert second == {f"{vendor}:pod": {f"{vendor}:pod": "!"} for vendor in VENDORS} | {
        "openai:pod": {"openai:pod": vendors.given[0]}
    }


async def test_a_reread_tells_again_and_asks_nobody(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """Of the file too, which may have come to be wrong."""
    source = workloads(vendors, token_file.path)
    async with following(source) as events:
        first = await events.event()
        source.reread()
        assert await events.event() == first
        token_file.put("no token")
        source.reread()
        last = await events.event()
    assert isinstance(last, UnitsListed)
    assert "has no JWT" in last.units[0].faults[0].message
    assert vendors.asked == []


async def test_the_file_is_read_anew_every_time(vendors: IdentityExchange, tmp_path: Path) -> None:
    """As the kubelet exchanges it: a link to a directory moves."""
    tokens = [Issuer().token() for _ in range(3)]
    volume = Volume(tmp_path / "volume", {"token": tokens[0]})
    source = workloads(vendors, tmp_path / "volume" / "token")
    assert await source.exchange("anthropic:pod") is None
    for token in tokens[1:]:
        volume.swap({"token": token})
        assert await source.exchange("anthropic:pod") is None
    assert [asked.identity for asked in vendors.asked] == tokens


async def test_the_last_token_is_kept(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """Whatever becomes of the next exchange, and of the file."""
    source = workloads(vendors, token_file.path)
    assert await source.exchange("anthropic:pod") is None
    profile, _ = await held(source)
    vendors.always = "http_503"
    assert (await failure(source)).code == "temporarily_unavailable"
    token_file.remove()
    assert (await failure(source)).code == "no_identity"
    kept, faults = await held(source)
    assert (kept, [fault.where for fault in faults]) == (profile, [str(token_file.path)])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no identity token at {}: mount a projected service-account token there, or correct token_file"),
        ("", "{} is empty: check the program that writes the token there"),
        ("sk-ant-canary", "{} has no JWT: name the file of a projected service-account token"),
        ("x" * (SIZE_MAX + 1), "{} is larger than 16 KiB, so it is not an identity token: name the file of a projected "),
        (Path, "{} is a directory, not a file: remove it or name another path"),
        (os.mkfifo, "{} is not a regular file: put a plain file in its place"),
    ],
)
async def test_a_file_that_is_no_token_is_told(vendors: IdentityExchange, tmp_path: Path, content: Any, why: str) -> None:
    """Before anybody asks and when it is to be sent, which it is not; it is looked at again soon."""
    file = tmp_path / "token"
    match content:
        case str():
            file.write_text(content)
        case None:
            pass
        case _:
            file.mkdir() if content is Path else content(file)
    source = workloads(vendors, file)
    failed, (_, [fault]) = await failure(source), await held(source)
    assert failed.reason.startswith(why.format(file))
    assert (fault, failed.retry_after) == (SourceFault(str(file), failed.reason), 15.0)
    assert "canary" not in failed.reason
    assert vendors.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_that_may_not_be_read_is_told(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """With what to do."""
    token_file.close()
    assert (await failure(workloads(vendors, token_file.path))).reason.endswith("let the user of the broker read it")


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "token",
    [
        {"subject": "system:serviceaccount:agents:other"},
        {"audience": "https://another.example"},
        {"life": -60},
    ],
    ids=str,
)
async def test_an_identity_that_is_not_trusted_is_refused(
    vendors: IdentityExchange, token_file: TokenFile, vendor: str, token: dict[str, Any]
) -> None:
    """In words of our own; one that has ended is called so."""
    token_file.put(Issuer().token(**token))
    failed = await failure(workloads(vendors, token_file.path, vendor), f"{vendor}:pod")
    assert failed.reason.startswith("the token endpoint answered 400 invalid_grant: check that the vendor trusts")
    assert ("expired 1m" in failed.reason) is ("life" in token)
    assert len(vendors.asked) == 1


async def test_another_issuers_identity_is_refused(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """Its signature was looked at; a field that was configured wrongly reads the same."""
    token_file.put(Issuer("k2").token())
    assert (await failure(workloads(vendors, token_file.path))).code == "invalid_grant"
    token_file.put(Issuer().token())
    assert (await failure(workloads(vendors, token_file.path, federation_rule_id="fdrl_2"))).code == "invalid_grant"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("http_500", "temporarily_unavailable"),
        ("http_429", "temporarily_unavailable"),
        ("slow", "no_answer"),
        ("reset", "no_answer"),
        ("garbled", "unusable_answer"),
        ("echo", "invalid_grant"),
    ],
)
async def test_a_vendor_that_fails_is_told_and_asked_again(
    vendors: IdentityExchange, token_file: TokenFile, fault: str, code: str
) -> None:
    """Once a call; the next one may succeed. Nothing of either token is in a failure."""
    source = workloads(vendors, token_file.path, within=0.2 if fault == "slow" else 20)
    vendors.faults = [fault]
    failed = await failure(source)
    assert failed.code == code
    identity = token_file.text()
    assert not any(part[at : at + 8] in failed.reason for part in (identity, *vendors.given) for at in range(len(part) - 8))
    source._endpoint = HttpTokenEndpoint()
    assert await source.exchange("anthropic:pod") is None


async def test_a_vendor_that_does_not_say_how_long_is_believed_for_an_hour(
    vendors: IdentityExchange, token_file: TokenFile
) -> None:
    """What ends sooner is replaced when it is refused."""
    source = workloads(vendors, token_file.path)
    vendors.faults = ["no_expiry"]
    assert await source.exchange("anthropic:pod") is None
    profile, _ = await held(source)
    assert profile.expires_at is not None
    assert profile.issued_at is not None
    assert profile.expires_at - profile.issued_at == 3600


async def test_whoever_stops_waiting_leaves_everything_as_it_was(vendors: IdentityExchange, token_file: TokenFile) -> None:
    """A broker that ends does not wait for a vendor."""
    source = workloads(vendors, token_file.path)
    vendors.always = "slow"
    asking = asyncio.ensure_future(source.exchange("anthropic:pod"))
    async with asyncio.timeout(60):
        while not vendors.asked:  # noqa: ASYNC110  (it is another thread that is asked)
            await asyncio.sleep(0.005)
    asking.cancel()
    await asyncio.wait([asking], timeout=60)
    assert asking.cancelled()
    assert (await held(source))[0].secret is None
