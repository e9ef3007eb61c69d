"""What the engine answers → messages."""

from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.errors import DeliveryNotAllowed, NoUsableProfile
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile, SourceFault, SourceState, Unit
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.provider import HeaderForm, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.messages import Grant
from equabot_broker.engine.leases.streams import Notice, NoticeKind
from equabot_broker.rpc.convert import LeaseMessages, finding, lease_summary, profile_status, source_status, timestamp
from tests.fakes.engine import profile

VENDOR = Provider(
    id="anthropic",
    headers={
        Mode.API_KEY: HeaderForm("x-api-key", ""),
        Mode.TOKEN: HeaderForm("Authorization", "Bearer ", {"anthropic-beta": "oauth-2025-04-20"}),
    },
    sdk_env={Mode.API_KEY: "ANTHROPIC_API_KEY", Mode.TOKEN: "ANTHROPIC_AUTH_TOKEN"},
    base_url="https://api.anthropic.com",
    base_url_env="ANTHROPIC_BASE_URL",
)
URLS = {"anthropic": "https://api.anthropic.com"}
LEASE = Lease(
    "l1", "main", "talk", "anthropic", "anthropic:work", True, Delivery.RAW, 900.0, 5000.0, 5900.25, 8600.0
)  # fmt: skip
OFFSET = 1_800_000_000.0 - 5000.0


def granted(**profile_fields: object) -> Grant:
    held = HeldProfile(profile("anthropic:work", **profile_fields), rank=0, version=7)  # type: ignore[arg-type]
    return Grant(LEASE, held, VENDOR, OFFSET, renewable=True)


def test_a_key_is_carried_in_the_vendors_header_and_variable() -> None:
    """The whole message of a raw lease on an API key."""
    assert LeaseMessages(URLS).lease(granted(secret="sk-1")) == broker_pb2.Lease(
        id="l1",
        provider="anthropic",
        profile="anthropic:work",
        mode="api_key",
        delivery="raw",
        secret="sk-1",
        headers={"x-api-key": "sk-1"},
        env={"ANTHROPIC_API_KEY": "sk-1"},
        base_url="https://api.anthropic.com",
        issued_at=Timestamp(seconds=1_800_000_000),
        expires_at=Timestamp(seconds=1_800_000_900, nanos=250_000_000),
        max_expires_at=Timestamp(seconds=1_800_003_600),
        renewable=True,
        version=7,
    )


def test_a_token_is_carried_as_one_and_says_when_it_ends() -> None:
    """Another header, another variable, and the end of the credential next to that of the lease."""
    message = LeaseMessages(URLS).lease(granted(secret="tok", mode=Mode.TOKEN, expires_at=1_800_000_600.5))
    assert message.mode == "token"
    assert dict(message.headers) == {"Authorization": "Bearer tok", "anthropic-beta": "oauth-2025-04-20"}
    assert dict(message.env) == {"ANTHROPIC_AUTH_TOKEN": "tok"}
    assert message.credential_expires_at == Timestamp(seconds=1_800_000_600, nanos=500_000_000)


def test_a_process_learns_of_another_address_than_the_vendors() -> None:
    """A configured `base_url` reaches the SDK by its variable; the vendor's own needs none."""
    elsewhere = replace(VENDOR, base_url="https://gateway.example")
    message = LeaseMessages(URLS).lease(replace(granted(secret="sk-1"), provider=elsewhere))
    assert message.base_url == "https://gateway.example"
    assert dict(message.env) == {"ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_BASE_URL": "https://gateway.example"}


def test_what_two_leases_share_is_copied_and_never_mixed() -> None:
    """A template holds material alone: ids, instants and renewability are each lease's own."""
    messages = LeaseMessages(URLS)
    first = granted(secret="sk-1")
    second = replace(first, lease=replace(LEASE, id="l2", expires_at=6000.0), renewable=False)
    one, two = messages.lease(first), messages.lease(second)
    assert (one.id, one.renewable, one.expires_at.seconds) == ("l1", True, 1_800_000_900)
    assert (two.id, two.renewable, two.expires_at.seconds) == ("l2", False, 1_800_001_000)
    two.secret = "changed by whoever got it"
    assert messages.lease(first) == one


@pytest.mark.parametrize("heard", [True, False], ids=["forgotten", "not forgotten"])
def test_new_material_is_never_answered_with_old(heard: bool) -> None:
    """With or without a notice of the change: a template serves only the material of which it was made."""
    messages = LeaseMessages(URLS)
    assert messages.lease(granted(secret="old")).secret == "old"
    if heard:
        messages.forget([("", "anthropic:work")])
    assert messages.lease(granted(secret="new")).secret == "new"
    elsewhere = replace(granted(secret="new"), provider=replace(VENDOR, base_url="https://b.example"))
    assert messages.lease(elsewhere).base_url == "https://b.example"


def test_one_agents_profile_is_not_anothers_of_the_same_name() -> None:
    """The owner is part of what a template is kept under."""
    messages = LeaseMessages(URLS)
    everybodys, own = granted(secret="shared"), granted(secret="own", agent="main")
    for _ in range(2):
        assert messages.lease(everybodys).secret == "shared"
        assert messages.lease(own).secret == "own"


def test_no_secret_stays_after_its_profile_changed() -> None:
    """What is forgotten is gone at once, and what is kept is bounded."""
    messages = LeaseMessages(URLS)
    messages.lease(granted(secret="old"))
    messages.forget([("", "anthropic:work"), ("", "anthropic:never-asked-for")])
    assert not messages._templates
    for number in range(1030):
        held = HeldProfile(profile(f"anthropic:{number}"), rank=0, version=1)
        messages.lease(Grant(LEASE, held, VENDOR, OFFSET, renewable=True))
    assert len(messages._templates) == 1024


def test_a_secret_leaves_only_as_it_was_asked_for() -> None:
    """A brokered lease never carries the secret itself, also not where a raw one on the same material went before."""
    messages = LeaseMessages(URLS)
    raw = granted(secret="sk-1")
    messages.lease(raw)
    with pytest.raises(DeliveryNotAllowed, match="brokered"):
        messages.lease(replace(raw, lease=replace(LEASE, delivery=Delivery.BROKERED)))
    with pytest.raises(NoUsableProfile, match="malformed"):
        messages.lease(granted(secret=None))


def test_an_event_carries_the_lease_until_it_has_ended() -> None:
    """Kinds by their names, the lease's id in any case."""
    messages, grant = LeaseMessages(URLS), granted(secret="sk-1")
    for kind in NoticeKind:
        ended = kind is NoticeKind.REVOKED
        message = messages.event(Notice(kind, "l1", None if ended else grant, reason="max_ttl" if ended else ""))
        assert broker_pb2.LeaseEvent.Kind.Name(message.kind) == kind.value
        assert message.lease_id == "l1"
        assert message.HasField("lease") is not ended
        assert message.reason == ("max_ttl" if ended else "")
        assert ended or message.lease == messages.lease(grant)


def test_an_instant_no_calendar_has_is_the_last_one() -> None:
    """The wire ends with the year 9999."""
    assert timestamp(1e300).ToJsonString() == "9999-12-31T23:59:59Z"
    assert timestamp(1.25).ToJsonString() == "1970-01-01T00:00:01.250Z"


def test_a_status_says_what_may_be_known() -> None:
    """Every field; instants only where there are any; names of files in whatever encoding."""
    status = ProfileStatus(
        id="anthropic:work", provider="anthropic", mode="token", source="mounted /run/\udcff", state="expiring",
        reason="expires in 3h", next=True, usable=True, pinned=True, label="sk-a…wxyz", expires_at=1.5, cooldown_until=2.0,
        disabled_until=3.0, disabled_reason="billing", last_used_at=4.0, base_url="https://a.example", version=7,
    )  # fmt: skip
    assert profile_status(status) == broker_pb2.ProfileStatus(
        id="anthropic:work", provider="anthropic", mode="token", source="mounted /run/?", state="expiring",
        reason="expires in 3h", next=True, usable=True, pinned=True, label="sk-a…wxyz",
        expires_at=Timestamp(seconds=1, nanos=500_000_000), cooldown_until=Timestamp(seconds=2),
        disabled_until=Timestamp(seconds=3), disabled_reason="billing", last_used_at=Timestamp(seconds=4),
        base_url="https://a.example", version=7,
    )  # fmt: skip
    bare = profile_status(ProfileStatus(id="anthropic:gone", provider="anthropic"))
    assert bare == broker_pb2.ProfileStatus(id="anthropic:gone", provider="anthropic", state="missing")


def test_a_summary_holds_no_material() -> None:
    """All that an operator sees of a lease."""
    assert lease_summary(replace(LEASE, streaming=True), offset=OFFSET) == admin_pb2.LeaseSummary(
        id="l1", agent="main", session="talk", provider="anthropic", profile="anthropic:work", delivery="raw",
        streaming=True, issued_at=Timestamp(seconds=1_800_000_000),
        expires_at=Timestamp(seconds=1_800_000_900, nanos=250_000_000), max_expires_at=Timestamp(seconds=1_800_003_600),
    )  # fmt: skip


DAWN = "1970-01-01T00:00"
UNIT = Unit("prod", (profile("anthropic:a"), profile("anthropic:b")), (SourceFault("prod/X", "not a key"),))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (SourceState("env"), {"state": "pending"}),
        (
            SourceState("env", stale_since=1.0, fault="no such file"),
            {"state": "pending", "fault": f"no such file (since {DAWN}:01Z)"},
        ),
        (SourceState("env", synced_at=2.0), {"state": "synced", "synced_at": Timestamp(seconds=2)}),
        (
            SourceState("env", units={"prod": UNIT}, synced_at=2.0, stale_since=3.0, fault="gone"),
            {
                "state": "stale",
                "fault": f"gone (since {DAWN}:03Z); not a key",
                "synced_at": Timestamp(seconds=2),
                "profiles": 2,
            },
        ),
        (
            SourceState("env", units={"prod": UNIT}, synced_at=2.0, stale_units={"dev": ("unreadable", 3.0)}),
            {
                "state": "stale",
                "fault": f"unreadable (since {DAWN}:03Z); not a key",
                "synced_at": Timestamp(seconds=2),
                "profiles": 2,
            },
        ),
    ],
)
def test_a_source_is_pending_synced_or_stale(state: SourceState, told: dict[str, object]) -> None:
    """Pending until it was read in full once; stale while the last good values are served."""
    expected = admin_pb2.SourceStatus(name="env", stale_budget=Duration(seconds=600), **told)  # type: ignore[arg-type]
    assert source_status(state, stale_budget=600.0) == expected


@pytest.mark.parametrize("severity", Severity)
def test_a_finding_keeps_its_gravity(severity: Severity) -> None:
    """Every severity has its number."""
    found = finding(Finding(severity=severity, subject="s", message="m", remedy="r"))
    assert found == admin_pb2.Finding(
        severity=admin_pb2.Finding.Severity.Value(severity.name), subject="s", message="m", remedy="r"
    )


# -- brokered ----------------------------------------------------------------------------------------------------------

TOKEN = SecretValue("eqb_" + "A" * 43)
GATEWAY = "http://127.0.0.1:8787"


def brokered(**profile_fields: object) -> Grant:
    grant = granted(**profile_fields)
    return replace(grant, lease=replace(LEASE, delivery=Delivery.BROKERED, token=b"t" * 32), token=TOKEN)


def test_a_token_stands_where_the_credential_would_and_the_gateway_where_the_vendor_would() -> None:
    """C3: the whole message: nothing of the secret, of its mode, of what the gateway adds, or that ends with the credential."""
    grant = brokered(secret="sk-1", mode=Mode.TOKEN, expires_at=1_800_000_600.0)
    token = TOKEN.reveal()
    assert LeaseMessages(URLS, gateway_url=GATEWAY).lease(grant) == broker_pb2.Lease(
        id="l1",
        provider="anthropic",
        profile="anthropic:work",
        mode="token",
        delivery="brokered",
        secret=token,
        headers={"x-api-key": token},
        env={"ANTHROPIC_API_KEY": token, "ANTHROPIC_AUTH_TOKEN": token, "ANTHROPIC_BASE_URL": f"{GATEWAY}/anthropic"},
        base_url=f"{GATEWAY}/anthropic",
        issued_at=Timestamp(seconds=1_800_000_000),
        expires_at=Timestamp(seconds=1_800_000_900, nanos=250_000_000),
        max_expires_at=Timestamp(seconds=1_800_003_600),
        renewable=True,
        version=7,
    )


def test_a_token_of_before_a_restart_is_not_known() -> None:
    """The first answer stays valid; the place and the time to show it are sent again."""
    message = LeaseMessages(URLS, gateway_url=GATEWAY).lease(replace(brokered(), token=None))
    assert (message.secret, dict(message.headers), dict(message.env)) == ("", {}, {})
    assert (message.base_url, message.id, message.HasField("expires_at")) == (f"{GATEWAY}/anthropic", "l1", True)


def test_leases_on_one_profile_do_not_share_a_token() -> None:
    """What is made once for many is what they have in common."""
    messages = LeaseMessages(URLS, gateway_url=GATEWAY)
    other = SecretValue("eqb_" + "B" * 42 + "A")
    first, raw, second = (
        messages.lease(grant) for grant in (brokered(), granted(secret="sk-1"), replace(brokered(), token=other))
    )
    assert (first.secret, raw.secret, second.secret) == (TOKEN.reveal(), "sk-1", other.reveal())
