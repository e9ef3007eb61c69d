"""A broker that has no descriptors left for a while: what changed in that time is served once it has some again."""

import os

import pytest

from tests.fakes.exhausted import without_descriptors
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to set another process's limits")
def test_a_key_that_was_rotated_while_descriptors_were_exhausted_is_served_afterwards(make_broker: MakeBroker) -> None:
    """S9: no event follows the rotation. Until then the key of before is served, and since when it cannot be read is said."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    with running.connect() as broker:
        lease = broker.acquire("anthropic")
        assert lease.secret.reveal() == KEY
        with without_descriptors(running.pid):
            running.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
            running.wait_for(lambda: "Too many open files" in running.log())
            assert broker.renew(lease).secret.reveal() == KEY
        running.wait_for(lambda: broker.renew(lease).secret.reveal() == OTHER_KEY)


def test_doctor_says_since_when_a_source_cannot_be_read(make_broker: MakeBroker) -> None:
    """S9: what the running broker knows, and a reading now does not."""
    running = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    running.write_dotenv("a key without its name\n")
    running.wait_output("doctor", until=lambda printed: "line 1 is skipped" in printed and "(since 20" in printed)
