"""Which agent a caller from elsewhere is."""

import pytest

from equabot_broker.domain.callers import CallerProof, Callers
from equabot_broker.domain.errors import PolicyDenied, Unidentified
from equabot_broker.domain.secret_value import SecretValue

CALLERS = Callers(
    accounts={"agents/reviewer": "reviewer", "agents/coder": "coder"},
    certificates={"spiffe://x/reviewer": "reviewer", "reviewer.svc": "reviewer", "coder": "coder"},
)


def test_a_service_account_is_the_agent_that_lists_it() -> None:
    """Namespace and name, both of them."""
    assert CALLERS.of_account("agents/reviewer") == "reviewer"
    assert CALLERS.of_account("agents/coder") == "coder"


@pytest.mark.parametrize("account", ["other/reviewer", "agents/unknown", "reviewer", ""])
def test_unlisted_account_is_refused(account: str) -> None:
    """Deny by default, and say what would change that."""
    with pytest.raises(PolicyDenied, match=r"does not map to an agent: add it to agents\.<agent>\.service_accounts") as raised:
        CALLERS.of_account(account)
    assert repr(account) in raised.value.message
    assert not isinstance(raised.value, Unidentified), "it is known who calls, and that it may not"


def test_a_certificate_is_the_agent_of_its_names() -> None:
    """One that is listed is enough, and two of one agent are no contradiction."""
    assert CALLERS.of_certificate(["spiffe://x/reviewer"]) == "reviewer"
    assert CALLERS.of_certificate(["unknown.svc", "reviewer.svc"]) == "reviewer"
    assert CALLERS.of_certificate(["spiffe://x/reviewer", "reviewer.svc"]) == "reviewer"


def test_certificate_of_two_agents_is_refused() -> None:
    """Which of them calls nobody can tell."""
    with pytest.raises(PolicyDenied, match="maps to several agents, coder, reviewer: issue a certificate"):
        CALLERS.of_certificate(["coder", "reviewer.svc"])


@pytest.mark.parametrize("names", [[], ["unknown"], ["CODER"], ["spiffe://x/reviewer/more"], ["x" * 5000]])
def test_unlisted_certificate_is_refused(names: list[str]) -> None:
    """Names are compared as they are. However long they are, the message is not."""
    with pytest.raises(PolicyDenied, match=r"add its name to agents\.<agent>\.certificates") as raised:
        CALLERS.of_certificate(names)
    assert len(raised.value.message) < 500


def test_no_caller_maps_to_an_agent_by_default() -> None:
    """Without a configuration there is no caller."""
    with pytest.raises(PolicyDenied):
        Callers().of_account("agents/reviewer")


def test_repr_of_a_proof_hides_it() -> None:
    """Not the token."""
    assert "canary" not in repr(CallerProof(token=SecretValue("canary")))
