"""`equabot dashboard` as a process: its link, its browser, its end."""

import re
import signal
import stat
from pathlib import Path

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import RunningBroker

SCRIPT = """#!/bin/sh
file="${1#file://}"
{ stat -c %a "$file"; cat "$file"; echo "$@"; } >>"$0.seen"
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_link_is_printed_once_and_a_signal_ends_it(make_broker: MakeBroker, number: signal.Signals) -> None:
    """Without a broker too."""
    broker = make_broker()
    process = broker.spawn("dashboard", "--no-browser")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert re.fullmatch(r"The dashboard is at http://127\.0\.0\.1:\d+/#[\w-]{43}\n", lines[0])
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_the_browser_gets_a_file_and_no_token(make_broker: MakeBroker) -> None:
    """Other users can read its arguments, and not the file, which is gone with the dashboard."""
    broker = make_broker()
    script = broker.home / "browser"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    seen = Path(f"{script}.seen")
    process = broker.spawn("dashboard", BROWSER=str(script), XDG_RUNTIME_DIR=str(broker.home))
    assert process.stdout is not None
    link = process.stdout.readline().split()[-1]
    broker.wait_for(lambda: seen.exists() and seen.read_text().count("\n") >= 3)
    rights, page, arguments = seen.read_text().splitlines()[:3]
    assert rights == "600"
    assert f"url={link}" in page
    assert link.partition("#")[2] not in arguments
    file = Path(arguments.removeprefix("file://"))
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    process.terminate()
    process.communicate(timeout=60)
    assert (process.returncode, file.parent.exists()) == (0, False)


def test_a_port_that_is_taken_is_named(running_broker: RunningBroker) -> None:
    port = running_broker.metrics.partition(":")[2]
    done = running_broker.run("dashboard", "--no-browser", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"equabot: cannot serve the dashboard on 127.0.0.1:{port}: Address already in use. Choose another --port\n"
    )
