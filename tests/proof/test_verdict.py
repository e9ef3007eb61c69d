"""The laws of the refresh proof, on ledgers of a few lines: what is a breach, and what only looks like one."""

from dataclasses import replace

import pytest

from equabot_broker.formats.refresh_marks import digest
from tests.fakes.token_endpoint import Entry
from tests.proof.person import Ended
from tests.proof.verdict import Death, Evidence, violations

LOGIN = Entry("login", 1.0, login="l", account="me", token="rt-1", access="at-1")
FIRST = Entry("presented", 2.0, 1, "l", "me", "rt-1", "at-2", "rt-2", "redeemed", asked="a")
ANSWERED = Entry("answered", 2.0, 1)
AGAIN = Entry("presented", 9.0, 2, "l", "me", "rt-1", verdict="reused", asked="b")
OVER = Entry("ended", 9.0, login="l", verdict="reused")
REFUSED = Entry("answered", 9.0, 2)
ONCE_MORE = Entry("presented", 12.0, 3, "l", "me", "rt-1", verdict="over", asked="c")
OF = digest({"refresh": "rt-1"})


def found(*ledger: Entry, stored: str = "", gave_up: str = "", ended: str = "", deaths: tuple[Death, ...] = ()) -> list[str]:
    seen = [Ended("s", "acme:me", ended, 10.0, OF)] if ended else []
    known = Evidence([LOGIN, *ledger], seen, list(deaths), [stored] if stored else [], gave_up=frozenset(gave_up))
    return violations(known)


def test_a_token_that_is_presented_after_its_answer_was_read_is_a_breach() -> None:
    """Whatever the process says of its other requests."""
    for gave_up in ("", "b"):
        [broken] = found(FIRST, ANSWERED, AGAIN, OVER, gave_up=gave_up)
        assert "was presented after it was redeemed, by request 2" in broken


@pytest.mark.parametrize(
    ("ledger", "gave_up"),
    [
        ((FIRST, AGAIN), ""),
        ((replace(FIRST, fault="truncated"), ANSWERED, AGAIN), ""),
        ((FIRST, ANSWERED, AGAIN), "a"),
    ],
    ids=["not written", "cut off", "written after the asker's time"],
)
def test_a_token_whose_answer_reached_no_one_may_be_presented_again(ledger: tuple[Entry, ...], gave_up: str) -> None:
    """T10: the third is what a busy machine does: the endpoint writes its answer, and the asker waits no longer."""
    assert found(*ledger, OVER, gave_up=gave_up, ended="refresh_token_reused") == []


def test_until_an_answer_says_that_it_is_spent() -> None:
    """T10: the refusal may be lost on its way, too."""
    again = (replace(FIRST, fault="slow"), AGAIN, OVER)
    assert found(*again, ONCE_MORE) == []
    assert found(*again, REFUSED, ONCE_MORE, gave_up="b") == []
    [broken] = found(*again, REFUSED, ONCE_MORE)
    assert "was presented after the endpoint had refused it, by request 3" in broken


def test_a_lost_answer_that_kept_the_token_excuses_nothing_later() -> None:
    """T10: the law asks for the answer of the very request that spent the token."""
    kept = replace(FIRST, number=7, at=1.5, successor="rt-1", fault="same_refresh", asked="x")
    [broken] = found(kept, FIRST, ANSWERED, AGAIN, gave_up="x")
    assert "was presented after it was redeemed" in broken


def test_a_store_that_ends_with_a_spent_token_is_a_breach() -> None:
    """And one that ends with its successor is not."""
    assert "dead refresh token" in found(FIRST, ANSWERED, stored="rt-1")[0]
    assert found(FIRST, ANSWERED, stored="rt-2") == []


def test_a_death_between_intent_and_store_is_noticed() -> None:
    """By whoever comes next."""
    died = (Death("answered", OF),)
    assert "was not noticed" in found(FIRST, ANSWERED, deaths=died)[0]
    assert found(FIRST, ANSWERED, deaths=died, ended="interrupted") == []
