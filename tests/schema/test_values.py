"""What each kind of text means, and what is refused with advice."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.config.keys import memory
from equabot_broker.domain.provider import Mode
from equabot_broker.identity.agent_socket import plan
from equabot_broker.schema import values
from equabot_broker.schema.faults import ValueRefused

CANARY = "sk-ant-api03-CANARYcanary0123456789"
EVERY: list[Callable[[str], Any]] = [
    values.text,
    values.affix,
    values.path,
    values.socket,
    values.boolean,
    values.count,
    values.span,
    values.duration,
    values.hours,
    values.milliseconds,
    values.instant,
    values.address,
    values.agent,
    values.provider,
    values.profile,
    values.variable,
    values.header,
    values.url,
    values.listed_name,
    values.size,
    memory,
    values.kube_name,
    values.model,
    values.rate,
    values.request,
    partial(values.word, ("json", "form")),
    partial(values.one_of, Mode),
]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.duration, "15m", 900.0),
        (values.duration, "1h", 3600.0),
        (values.duration, "90s", 90.0),
        (values.duration, "24h", 86400.0),
        (values.duration, "1h30m", 5400.0),
        (values.duration, "2d", 172800.0),
        (values.duration, "500ms", 0.5),
        (values.span, "0s", 0.0),
        (values.hours, "5", 18000.0),
        (values.hours, "0.5", 1800.0),
        (values.milliseconds, "15000", 15.0),
        (values.size, "256Mi", 256 << 20),
        (values.size, "1G", 10**9),
        (memory, "134217728", 128 << 20),
        (values.listed_name, "X-Team-*", "X-Team-*"),
        (values.listed_name, "*", "*"),
        (values.instant, "1970-01-01T00:00:00Z", 0.0),
        (values.instant, "2027-01-01T00:00:00Z", 1798761600.0),
        (values.instant, "2027-01-01T02:00:00.5+02:00", 1798761600.5),
        (values.instant, "2027-01-01t00:00:00z", 1798761600.0),
        (values.address, "127.0.0.1:8686", ("127.0.0.1", 8686)),
        (values.address, "[::1]:0", ("::1", 0)),
        (values.address, "localhost:65535", ("localhost", 65535)),
        (values.agent, "main", "main"),
        (values.agent, "coder-2_b", "coder-2_b"),
        (values.provider, "z.ai", "z.ai"),
        (values.profile, "anthropic:me@example.com", ("anthropic", "me@example.com")),
        (values.rate, "20/s", 20.0),
        (values.rate, "600/m", 10.0),
        (values.rate, "1800/h", 0.5),
        (values.count, "100", 100),
        (values.boolean, "true", True),
        (values.boolean, "Off", False),
        (values.url, "https://api.example.com/v1", "https://api.example.com/v1"),
        (values.url, "http://10.0.0.1:8080", "http://10.0.0.1:8080"),
        (values.url, "http://[::1]:8080/x", "http://[::1]:8080/x"),
        (values.model, "openrouter/anthropic/claude-sonnet-4-5", "openrouter/anthropic/claude-sonnet-4-5"),
        (values.path, "~/x", "~/x"),
        (values.socket, "unix:/run/x.sock", "/run/x.sock"),
        (values.socket, "/run/x.sock", "/run/x.sock"),
        (values.header, "x-api-key", "x-api-key"),
        (values.affix, "Bearer ", "Bearer "),
        (values.affix, "", ""),
        (values.variable, "ACME_API_KEY", "ACME_API_KEY"),
        (partial(values.one_of, Mode), "oauth", Mode.OAUTH),
    ],
)
def test_text_becomes_value(parse: Callable[[str], Any], text: str, value: object) -> None:
    """Units are seconds, instants seconds since the epoch."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "advice"),
    [
        (values.duration, "15", "has no unit; write 15m"),
        (values.duration, "1.5", "has no unit"),
        (values.duration, "", "not a duration"),
        (values.duration, "15 m", "not a duration"),
        (values.duration, "30m1h", "not a duration"),
        (values.duration, "-1h", "not a duration"),
        (values.duration, "1h1h", "not a duration"),
        (values.duration, "\u0661h", "not a duration"),
        (values.duration, "0s", "longer than zero"),
        (values.duration, "3651d", "at most 3650d"),
        (values.duration, "9" * 30 + "d", "not a duration"),
        (values.hours, "5h", "number of hours"),
        (values.size, "1.5Gi", "write 256Mi"),
        (values.size, "256 Mi", "write 256Mi"),
        (memory, "127Mi", "write 128Mi or more"),
        (values.listed_name, "x-*-y", "is not a name"),
        (values.listed_name, "a b", "is not a name"),
        (values.listed_name, "", "is not a name"),
        (values.hours, "0", "above zero"),
        (values.instant, "2027-01-01", "RFC 3339"),
        (values.instant, "2027-01-01T00:00:00", "with its offset"),
        (values.instant, "2027-01-01 00:00:00Z", "RFC 3339"),
        (values.instant, "2027-02-30T00:00:00Z", "not a date and time that exists"),
        (values.instant, "2027-01-01T24:00:01Z", "not a date and time that exists"),
        (values.instant, "0000-01-01T00:00:00Z", "not a date and time that exists"),
        (values.instant, "1969-12-31T23:59:59Z", "before 1970"),
        (values.address, "8686", "has no port; write host:port"),
        (values.address, "127.0.0.1", "has no port"),
        (values.address, ":8686", "0.0.0.0:8686 for every interface"),
        (values.address, "127.0.0.1:65536", "greater than 65535"),
        (values.address, "127.0.0:80", "no valid host"),
        (values.address, "::1:80", "no valid host"),
        (values.address, "[127.0.0.1]:80", "no valid host"),
        (values.address, "http://x:80", "no valid host"),
        (values.address, "a b:80", "no valid host"),
        (values.agent, "admin", "socket directory of the broker"),
        (values.agent, "gateway", "socket directory of the broker"),
        (values.agent, "Main", "not a valid agent name"),
        (values.agent, "..", "not a valid agent name"),
        (values.agent, "a/b", "not a valid agent name"),
        (values.agent, "a" * 64, "not a valid agent name"),
        (values.agent, "main\n", "not a valid agent name"),
        (values.profile, "anthropic", "write provider:name"),
        (values.profile, "anthropic:", "write provider:name"),
        (values.profile, ":x", "write provider:name"),
        (values.profile, "a:b:c", "write provider:name"),
        (values.provider, "Anthropic", "not a provider id"),
        (values.rate, "20", "20/s"),
        (values.rate, "0/s", "20/s"),
        (values.rate, "20/d", "20/s"),
        (values.count, "0", "from 1"),
        (values.count, "1000001", "to 1000000"),
        (values.count, "1e3", "whole number"),
        (values.boolean, "1", "true or false"),
        (values.url, "ftp://x", "https://"),
        (values.url, "https://user:pass@x", "without user"),
        (values.url, "https://x/?key=1", "query"),
        (values.model, "claude", "provider/model"),
        (values.path, "~other/x", "another user"),
        (values.path, "", "not empty"),
        (values.text, "a\nb", "one line"),
        (values.text, "\ud800", "text on one line"),
        (partial(values.one_of, Mode), "apikey", "api_key, token, oauth, wif"),
    ],
)
def test_refusal_says_what_would_be_right(parse: Callable[[str], Any], text: str, advice: str) -> None:
    """Every refusal carries its remedy."""
    with pytest.raises(ValueRefused) as caught:
        parse(text)
    assert advice in str(caught.value)


@pytest.mark.parametrize("parse", EVERY)
@given(text=st.text(max_size=60))
def test_any_text_is_a_value_or_refused(parse: Callable[[str], Any], text: str) -> None:
    """No other error gets out."""
    with suppress(ValueRefused):
        parse(text)


@pytest.mark.parametrize("parse", EVERY)
@pytest.mark.parametrize("text", [CANARY, f"Bearer {CANARY}", f"x:{CANARY}", f"{CANARY}:80", f"KEY={CANARY}", "CANARY" * 10])
def test_refusal_shows_no_key(parse: Callable[[str], Any], text: str) -> None:
    """A key pasted in the wrong place is not told."""
    message = ""
    try:
        parse(text)
    except ValueRefused as refused:
        message = repr(refused)
    assert "CANARY" not in message


@given(st.from_regex("[a-z0-9_-]{1,70}", fullmatch=True))
def test_an_agents_name_is_one_for_its_socket(name: str) -> None:
    """Configuration and sockets agree on what an agent may be called."""
    with suppress(ValueRefused):
        assert plan(Path("/r"), [values.agent(name)]).faults() == []


@given(st.integers(min_value=1, max_value=3650 * 86_400_000))
def test_durations_are_shown_as_they_are_written(milliseconds: int) -> None:
    """What is shown can be written again."""
    assert values.duration(values.shown(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
