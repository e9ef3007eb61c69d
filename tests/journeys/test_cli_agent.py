"""`equabot agent` against a broker process."""

import json

from equabot_client import admin, errors
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

TWO_AGENTS = "agents: {main: {providers: ['*']}, coder: {providers: ['*']}}\n"
BOTH = f"ANTHROPIC_API_KEY={KEY}\n"


def refusal(broker: RunningBroker, agent: str = "main") -> str:
    """The reason for which the agent gets no lease; empty where it gets one."""
    with broker.connect(agent) as connected:
        try:
            connected.acquire("anthropic")
        except errors.EquabotError as refused:
            return refused.reason
    return ""


def test_an_agent_is_listed_suspended_and_resumed(make_broker: MakeBroker) -> None:
    """S11: one line for a person, the agent for a program; the others go on."""
    broker = make_broker(dotenv=BOTH, config=TWO_AGENTS).start()
    assert (refusal(broker), refusal(broker, "coder")) == ("", "")
    listed = broker.run("agent", "list")
    assert listed.stdout.splitlines() == [
        "coder\tactive\t1\t0\t*\traw, brokered",
        "main\tactive\t1\t0\t*\traw, brokered",
    ]
    done = broker.run("agent", "suspend", "main", "--reason", "odd requests")
    words = "agent main is suspended; 1 lease ended. `equabot agent resume main` resumes it\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, words, "")
    assert (refusal(broker), refusal(broker, "coder")) == ("AGENT_SUSPENDED", "")
    assert "main\tsuspended\t0\t0\t" in broker.run("agent", "list").stdout
    again = json.loads(broker.run("agent", "suspend", "main", "--json").stdout)
    assert (again["agent"], again["suspended"], again["reason"], again["revoked"]) == ("main", True, "odd requests", 0)
    assert again["since"].endswith("Z")
    refused = broker.run("lease", "acquire", "anthropic")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("equabot: AGENT_SUSPENDED: agent 'main' is suspended")
    assert "equabot agent resume main" in broker.run("doctor").stdout
    assert 'equabot_agent_suspended{agent="main"} 1.0' in broker.scrape()
    assert broker.run("agent", "resume", "main").stdout == "agent main is resumed\n"
    assert refusal(broker) == ""
    assert json.loads(broker.run("agent", "resume", "main", "--json").stdout)["resumed"] is False
    kinds = [json.loads(line) for line in broker.audit().splitlines()]
    told = [(record["kind"], record["agent"], record.get("reason")) for record in kinds if record["kind"].startswith("agent_")]
    assert told == [
        ("agent_suspended", "main", "odd requests"),
        ("agent_suspended", "main", "odd requests"),
        ("agent_resumed", "main", None),
    ]


def test_a_suspension_outlives_the_broker_however_that_ends(make_broker: MakeBroker) -> None:
    """S11: `kill -9` right after the answer, and a stop; until it is resumed, which lasts as well."""
    broker = make_broker(dotenv=BOTH, config=TWO_AGENTS).start()
    assert broker.run("agent", "suspend", "coder").returncode == 0
    broker.kill()
    broker.start()
    assert (refusal(broker, "coder"), refusal(broker)) == ("AGENT_SUSPENDED", "")
    broker.stop()
    assert "equabot agent resume coder" in broker.run("doctor").stdout
    broker.start()
    assert refusal(broker, "coder") == "AGENT_SUSPENDED"
    with admin.connect(str(broker.socket("admin"))) as operator:
        operator.resume_agent("coder")
    broker.kill()
    broker.start()
    assert refusal(broker, "coder") == ""


def test_a_client_that_waits_gets_its_credential_once_the_agent_is_resumed(make_broker: MakeBroker) -> None:
    """S11: a suspension takes away what was in hand; afterwards nothing has to be restarted."""
    broker = make_broker(dotenv=BOTH).start()
    with broker.connect() as connected, connected.credential("anthropic") as credential:
        assert credential.secret().reveal() == KEY
        assert broker.run("agent", "suspend", "main").returncode == 0
        broker.wait_for(lambda: _reason(credential) == "AGENT_SUSPENDED")
        assert broker.run("agent", "resume", "main").returncode == 0
        broker.wait_for(lambda: _reason(credential) == "")


def _reason(credential: object) -> str:
    try:
        credential.secret()  # type: ignore[attr-defined]
    except errors.EquabotError as refused:
        return refused.reason
    return ""


def test_what_is_refused_says_why(shared_broker: RunningBroker) -> None:
    """1 for what the broker refuses, 64 for a key among the arguments, 3 without a broker; nothing has changed."""
    unknown = shared_broker.run("agent", "suspend", "mian")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "agent 'mian' is not configured: the configured agents are main" in unknown.stderr
    key = shared_broker.run("agent", "suspend", "main", "--reason", KEY)
    assert (key.returncode, key.stdout) == (64, "")
    assert KEY[:20] not in key.stderr
    absent = shared_broker.run("agent", "list", EQUABOT_RUN_DIR=str(shared_broker.home / "nowhere"))
    assert absent.returncode == 3
    assert refusal(shared_broker) == ""
