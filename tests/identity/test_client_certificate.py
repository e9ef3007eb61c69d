"""Whose a caller's certificate is."""

from datetime import UTC, datetime

import pytest

from equabot_broker.domain.callers import CallerProof, Callers, Identified
from equabot_broker.domain.errors import PolicyDenied, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.client_certificate import ClientCertificates
from tests.fakes.clock import FakeClock
from tests.kubernetes.certificates import Authority

AUTHORITY = Authority("callers")
URI = "spiffe://cluster.local/ns/agents/sa/reviewer"
CALLERS = Callers(certificates={URI: "by-uri", "reviewer.agents.svc": "by-name", "reviewer": "by-common-name"})
ENDS = datetime.fromtimestamp(1_800_000_600, UTC)


def shown(common_name: str, *names: str) -> CallerProof:
    return CallerProof(certificate=AUTHORITY.caller(common_name, *names, ends=ENDS).certificate.decode())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def certificates(clock: FakeClock) -> ClientCertificates:
    return ClientCertificates(CALLERS, clock=clock)


@pytest.mark.parametrize(
    ("names", "agent"),
    [
        (("other", URI), "by-uri"),
        (("reviewer", URI, "reviewer.agents.svc"), "by-uri"),
        (("reviewer", "reviewer.agents.svc"), "by-name"),
        (("reviewer",), "by-common-name"),
        (("reviewer", "10.0.0.1"), "by-common-name"),
    ],
)
async def test_the_most_telling_names_count(certificates: ClientCertificates, names: tuple[str, ...], agent: str) -> None:
    """URIs before DNS names before the common name: the others are not looked at."""
    assert await certificates.identify(shown(*names)) == Identified(agent=agent, until=5600.0)


@pytest.mark.parametrize(
    "names",
    [("reviewer", "spiffe://cluster.local/ns/other/sa/reviewer"), ("reviewer", "other.agents.svc"), ("other",), (URI + "x",)],
)
async def test_names_of_less_weight_do_not_stand_in(certificates: ClientCertificates, names: tuple[str, ...]) -> None:
    """A certificate with an unknown URI identifies no agent, whatever else it has."""
    with pytest.raises(PolicyDenied, match=r"add its name to agents\.<agent>\.certificates"):
        await certificates.identify(shown(*names))


async def test_a_certificate_ends_on_an_open_connection_too(certificates: ClientCertificates, clock: FakeClock) -> None:
    """The handshake was long ago; the next call on the connection is asked for a new certificate."""
    one = shown("reviewer")
    assert (await certificates.identify(one)).until == 5600.0
    clock.advance(599)
    assert (await certificates.identify(one)).until == 5600.0
    clock.advance(1)
    with pytest.raises(Unidentified, match="has expired: open another connection with the renewed one"):
        await certificates.identify(one)


@pytest.mark.parametrize("certificate", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_without_a_certificate_no_caller_is_identified(certificates: ClientCertificates, certificate: str) -> None:
    """A token in its place does not count here: this is the address of those who have one."""
    with pytest.raises(Unidentified):
        await certificates.identify(CallerProof(token=SecretValue("a.b.c"), certificate=certificate))


async def test_what_is_remembered_is_bounded(clock: FakeClock) -> None:
    """However many certificates the authority issues."""
    certificates = ClientCertificates(CALLERS, clock=clock)
    one = shown("reviewer").certificate
    for number in range(4200):
        await certificates.identify(CallerProof(certificate=one + " " * number))
    assert len(certificates._read) == 4096
