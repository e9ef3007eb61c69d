"""Incidents: a number, a count by port, a line in the log; and no value anywhere."""

import errno
import io
import json
import os

import pytest

from equabot_broker.telemetry.incidents import PORTS, Incidents
from equabot_broker.telemetry.log import configure

SECRET = "unlike-any-known-form"


@pytest.fixture
def logged() -> io.StringIO:
    stream = io.StringIO()
    configure("INFO", json=True, stream=stream)
    return stream


def thrown(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(errno.EACCES, SECRET), "PermissionError: Permission denied"),
        (OSError(SECRET), "OSError"),
        (OSError(SECRET, SECRET), "OSError"),
        (ValueError(SECRET), "ValueError"),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), "UnicodeDecodeError"),
        (ExceptionGroup(SECRET, [KeyError(SECRET), ExceptionGroup(SECRET, [OSError(errno.EIO, SECRET)])]),
         f"KeyError, OSError: {os.strerror(errno.EIO)}"),
        (ExceptionGroup(SECRET, [kind(SECRET) for kind in (KeyError, IndexError, TypeError, ValueError)]),
         "KeyError, IndexError, TypeError, …"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_incident_says_its_type_and_no_value(logged: io.StringIO, error: Exception, kind: str) -> None:
    """P1: neither the fault's text nor the log has what the exception says; the log has the type and the places."""
    incidents = Incidents()
    found = incidents.report("source", "dotenv /x", thrown(error))
    assert str(found) == f"an unexpected fault ({kind}), incident {found.number} in the broker's log"
    (line,) = map(json.loads, logged.getvalue().splitlines())
    assert line["message"] == f"incident {found.number}: an unexpected fault of source dotenv /x"
    assert line["exception"]["type"] == type(error).__name__
    assert "test_incidents.py" in line["exception"]["frames"][0]
    if not isinstance(error, OSError) or error.errno is None:
        assert SECRET not in logged.getvalue()
    assert incidents.counts() == dict.fromkeys(PORTS, 0) | {"source": 1}


def test_the_same_incident_keeps_its_number_and_does_not_fill_the_log(logged: io.StringIO) -> None:
    """The first, the second, the fourth … are logged. Another subject, type or place is another incident."""
    incidents = Incidents()
    numbers = {incidents.report("probe", "acme", thrown(ValueError(str(turn)))).number for turn in range(100)}
    assert len(numbers) == 1
    assert len(logged.getvalue().splitlines()) == 7
    assert incidents.counts()["probe"] == 100
    others = [
        incidents.report("probe", "acme", thrown(KeyError())),
        incidents.report("probe", "other", thrown(ValueError())),
        incidents.report("task", "acme", thrown(ValueError())),
    ]
    assert len(numbers | {other.number for other in others}) == 4


def test_what_is_remembered_is_bounded(logged: io.StringIO) -> None:
    """Any number of subjects."""
    incidents = Incidents()
    for subject in range(1000):
        incidents.report("source", str(subject), thrown(ValueError()))
    assert len(incidents._known) == 256
    assert incidents.counts()["source"] == 1000
