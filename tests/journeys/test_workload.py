"""A real broker whose credential is its own identity: tokens of seconds, a vendor that comes and goes, nothing that leaks."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from equabot_client import Credential, Outcome, errors
from tests.fakes.identity_exchange import VENDORS, IdentityExchange, Issuer
from tests.journeys.canaries import Canaries
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker
from tests.journeys.showing import TALKATIVE, shown_by

POD = "anthropic:pod"
CONFIG = """\
providers: {{anthropic: {{token_url: "{url}/anthropic"}}}}
required: [anthropic]
profiles:
  anthropic:pod:
    mode: wif
    wif:
      token_file: token
      federation_rule_id: fdrl_1
      organization_id: org-1
      service_account_id: svac_1
"""


@pytest.fixture
def vendors() -> Iterator[IdentityExchange]:
    with IdentityExchange(Issuer().keys, life=3.0) as serving:
        yield serving


def identity(broker: RunningBroker, token: str) -> None:
    """What the kubelet does: another file in the place of the first."""
    new = broker.home / "token.new"
    new.write_text(token)
    new.replace(broker.home / "token")


def described(broker: RunningBroker, profile: str = POD) -> dict[str, object]:
    """What `models status` says of the profile."""
    status = json.loads(broker.run("models", "status", "--json").stdout)
    [found] = [row for row in status["auth"]["oauth"]["profiles"] if row["profileId"] == profile]
    told: dict[str, object] = found
    return told


def becomes(credential: Credential, profile: str, *, not_secret: str = "") -> str:
    """The secret, once the credential is of that profile and is another one."""
    lease = credential.lease()
    deadline = time.monotonic() + 60
    while lease.profile != profile or lease.secret.reveal() == not_secret:
        with suppress(TimeoutError):
            lease = credential.wait_for_change(since=lease, timeout=deadline - time.monotonic())
    return lease.secret.reveal()


def test_tokens_of_seconds_are_followed_and_a_key_stands_in(make_broker: MakeBroker, vendors: IdentityExchange) -> None:
    """One open credential all the time: rotations, the vendor down, the key instead, the vendor back."""
    broker = make_broker(config=CONFIG.format(url=vendors.url), dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    identity(broker, Issuer().token())
    broker.start()
    with broker.connect() as client, client.credential("anthropic") as credential:
        first = becomes(credential, POD)
        assert first in vendors.given
        assert dict(credential.headers()) == {"Authorization": f"Bearer {first}", "anthropic-beta": "oauth-2025-04-20"}
        second = becomes(credential, POD, not_secret=first)
        third = becomes(credential, POD, not_secret=second)
        assert len({first, second, third} & set(vendors.given)) == 3
        broker.wait_healthy(f"profile/{POD}")
        vendors.always = "http_503"
        assert becomes(credential, "anthropic:dotenv") == KEY
        assert "503 temporarily_unavailable" in str(described(broker)["reason"])
        broker.wait_healthy(f"profile/{POD}", serving=False)
        broker.wait_healthy()
        vendors.always = ""
        vendors.life = 600.0
        broker.wait_healthy(f"profile/{POD}")
        assert client.acquire("anthropic").profile == POD
    assert "equabot_refreshes_total" in broker.scrape()


def test_a_refused_token_is_replaced_by_the_next_exchange(make_broker: MakeBroker, vendors: IdentityExchange) -> None:
    """At once, and with what the identity's file holds by then."""
    vendors.life = 600.0
    broker = make_broker(config=CONFIG.format(url=vendors.url))
    identity(broker, Issuer().token())
    broker.start()
    renewed = Issuer().token()
    identity(broker, renewed)
    with broker.connect() as client:
        lease = client.acquire(POD)
        assert client.report(lease, Outcome.AUTH)
        after = client.renew(lease)
        assert [lease.secret.reveal(), after.secret.reveal()] == vendors.given
        assert vendors.asked[-1].identity == renewed


def test_what_is_wrong_with_the_identity_is_told_and_mended_without_a_restart(
    make_broker: MakeBroker, vendors: IdentityExchange
) -> None:
    """By the list, by readiness, by `doctor`; the profile is there all the time."""
    broker = make_broker(config=CONFIG.format(url=vendors.url))
    vendors.life = 600.0
    identity(broker, Issuer().token(life=-9000))
    broker.start(service="liveness")
    with broker.connect() as client, pytest.raises(errors.RefreshFailed, match=r"the identity token in .* expired 2h3\dm ago"):
        client.acquire("anthropic")
    broker.wait_healthy(serving=False)
    assert described(broker)["status"] == "missing"
    identity(broker, Issuer().token())
    broker.wait_healthy()
    assert described(broker)["status"] == "ok"


def test_an_identity_that_is_not_there_is_told(make_broker: MakeBroker, vendors: IdentityExchange) -> None:
    """With what to do, to an agent, by the list and by `doctor`; other profiles serve."""
    broker = make_broker(config=CONFIG.format(url=vendors.url), dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    remedy = "mount a projected service-account token there, or correct token_file"
    why = f"there is no identity token at {broker.home}/token: {remedy}"
    with broker.connect() as client:
        assert client.acquire("anthropic").secret.reveal() == KEY
        with pytest.raises(errors.RefreshFailed, match="there is no identity token"):
            client.acquire(POD)
    assert str(described(broker)["reason"]).endswith(why)
    assert why in broker.run("doctor").stdout


def test_without_a_broker_it_is_told_who_exchanges(make_broker: MakeBroker, vendors: IdentityExchange) -> None:
    """A command asks no vendor by itself."""
    broker = make_broker(config=CONFIG.format(url=vendors.url))
    identity(broker, Issuer().token())
    assert described(broker)["reason"] == "its identity token was not exchanged yet; a running broker exchanges it"
    assert vendors.asked == []


def test_neither_token_comes_out_where_it_is_not_handed_out(make_broker: MakeBroker, vendors: IdentityExchange) -> None:
    """By anything that a broker shows, through successes, refusals, an endpoint that echoes, files that hold no identity."""
    canaries = Canaries()
    vendors.life = 1.0
    vendors.new = lambda prefix: canaries.new("a token", like=f"{prefix}{{}}")
    token = Issuer().token()
    canaries.add("an identity", token)
    broker = make_broker(config=CONFIG.format(url=vendors.url))
    identity(broker, token)
    broker.environ |= TALKATIVE
    broker.start("-vv")
    shown: dict[str, str | bytes] = {}
    vendors.always = "echo"
    broker.wait_for(lambda: "invalid_grant" in str(described(broker)["reason"]))
    shown |= {f"{where}, echoed": what for where, what in shown_by(broker, "token").items()}
    for number, broken in enumerate((token[:-20], token + "\n.broken")):
        identity(broker, broken)
        with broker.connect() as client, pytest.raises(errors.EquabotError) as raised:
            client.acquire(POD)
        shown[f"told {number}"] = f"{raised.value!r} {raised.value.message} {dict(raised.value.metadata)}"
    broker.wait_for(lambda: "has no JWT" in str(described(broker)["reason"]))
    shown |= shown_by(broker, "token")
    assert canaries.leaks(shown) == {}
    assert "a token" in canaries.seen_in(vendors.given[0])
    assert "an identity" in canaries.seen_in(token)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendor(make_broker: MakeBroker, vendors: IdentityExchange, vendor: str) -> None:
    """Configured as its documentation names things."""
    told = {name: value for name, value in VENDORS[vendor].fields.items() if name.endswith("_id")}
    config = {
        "providers": {vendor: {"token_url": f"{vendors.url}/{vendor}"}},
        "profiles": {f"{vendor}:pod": {"wif": {"token_file": "token", **told}}},
    }
    vendors.life = 600.0
    broker = make_broker(config=json.dumps(config))
    identity(broker, Issuer().token())
    broker.start()
    with broker.connect() as client:
        lease = client.acquire(vendor)
    assert (lease.profile, lease.secret.reveal(), lease.mode) == (f"{vendor}:pod", vendors.given[0], "wif")
