"""Lines of a `.env` that are no credential and were meant as one: said everywhere, with no byte of a value."""

import pytest

from tests.fakes.host import Host
from tests.journeys.conftest import make_broker  # noqa: F401 - a fixture
from tests.journeys.running import KEY, RunningBroker

CANARY = "sk-ant-api03-" + "c4nary" * 15
JUNK = f"OPENAI_API_KEY\nexport GEMINI_API_KEY\nANTHROPIC_KEY={CANARY}\nMY_AI={CANARY}\n# GROQ_API_KEY\nGREETING=hello\n"
SAID = (
    ".env OPENAI_API_KEY", "has no value: write OPENAI_API_KEY=value", "has no value: write GEMINI_API_KEY=value",
    "did you mean ANTHROPIC_API_KEY (anthropic)?", "its value begins like a credential of anthropic; name it ANTHROPIC_API_KEY",
)  # fmt: skip


@pytest.mark.parametrize("words", [("doctor",), ("doctor", "--json"), ("models", "status")])
def test_junk_lines_are_said_without_a_broker(host: Host, words: tuple[str, ...]) -> None:
    """C13: comments, values that mean "no credential", and names with a value elsewhere are not reported."""
    (host.home / ".env").write_text(f"{JUNK}GEMINI_API_KEY={'AIza' + 'x7' * 18}\n")
    (host.home / ".env").chmod(0o600)
    done = host.run(*words)
    said = (done.out + done.err).replace("\t", " ")
    assert [text for text in SAID if text not in said] == ["has no value: write GEMINI_API_KEY=value"]
    assert "GROQ" not in said
    assert "GREETING" not in said
    assert "c4nary" not in said


def test_junk_lines_are_said_by_a_broker(make_broker) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    """C13: in its log, and to the commands that ask it."""
    broker: RunningBroker = make_broker(dotenv=f"{JUNK}ANTHROPIC_API_KEY={KEY}\n").start()
    told = [broker.log(), broker.run("doctor").stdout, broker.run("models", "status").stdout]
    for said in told:
        missing = [text for text in SAID if text not in said.replace("\t", " ")]
        assert missing == [], said
        assert "c4nary" not in said
