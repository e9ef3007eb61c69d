"""`equabot dashboard`: a read-only page about the broker, on loopback, for one browser."""

import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from equabot_broker.cli.arguments import configuration
from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import admin, refusals
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import environment, now

if TYPE_CHECKING:
    from equabot_broker.config.model import Config
    from equabot_broker.dashboard.broker_view import BrokerReading
    from equabot_client.admin import Admin

_ABOUT: Final = """\
Serve a page that shows the broker: credentials and their ends, leases, traffic, refreshes and the audit log. The page is
read-only, has no secret, and updates by itself. It is served on 127.0.0.1 until Ctrl-C. The printed link works once, and only
the browser that opened it can read the page. Without a broker the page says so and waits for one.
"""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
_OPENER: Final = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={}"><title>equabot</title>\n'


def add_parser(subparsers: Any, **described: str) -> None:
    """`dashboard [--port N] [--no-browser]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "dashboard",
        description=_ABOUT,
        examples=("equabot dashboard", "equabot dashboard --no-browser --port 8788"),
        **described,
    )
    parser.add_argument("--port", metavar="N", type=int, default=0, help="The port on 127.0.0.1 (default: any free port).")
    parser.add_argument("--no-browser", action="store_true", help="Only print the link; do not open a browser.")
    add_places(parser)
    parser.set_defaults(run=run, agent=None)


def run(args: Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM. Raises Failure for a configuration that is refused and for a port that is not free."""
    import asyncio  # noqa: PLC0415

    from equabot_broker.dashboard import running  # noqa: PLC0415
    from equabot_broker.dashboard.audit_tail import AuditTail  # noqa: PLC0415
    from equabot_broker.dashboard.watching import DashboardSources  # noqa: PLC0415
    from equabot_broker.domain.errors import CannotStart  # noqa: PLC0415
    from equabot_broker.telemetry.redaction import Redactor  # noqa: PLC0415

    config = configuration(args)
    with ExitStack() as ending:
        operator = OperatorReading(args)
        ending.callback(operator.close)
        sources = DashboardSources(
            read=operator,
            metrics=_metrics(config),
            audit=AuditTail(config.audit.path, anchor=config.anchor_path),
            now=now,
        )

        def ready(link: str) -> None:
            output.say(f"The dashboard is at {link}")
            output.say("The link works once. Ctrl-C ends the dashboard.")
            sys.stdout.flush()
            if not args.no_browser:
                _open(link, ending)

        try:
            asyncio.run(running.run(sources, port=args.port, redact=Redactor().text, ready=ready, close=operator.close))
        except CannotStart as reason:
            raise Failure(str(reason)) from None
    return Exit.DONE


class OperatorReading:
    """Reads the broker through the admin socket. It connects again after a failure."""

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._connection = ExitStack()
        self._admin: Admin | None = None

    def __call__(self) -> "BrokerReading":
        """What the broker answers now. Raises BrokerSilent."""
        from equabot_broker.dashboard.broker_view import BrokerReading, BrokerSilent  # noqa: PLC0415

        try:
            with refusals(self._args):
                if self._admin is None:
                    self._admin = self._connection.enter_context(admin(self._args))
                operator = self._admin
                return BrokerReading(
                    profiles=operator.list_profiles(),
                    agents=operator.list_agents(),
                    leases=operator.list_leases(),
                    sources=operator.sources(),
                    findings=operator.findings(),
                )
        except Failure as failure:
            self.close()
            raise BrokerSilent(str(failure)) from None

    def close(self) -> None:
        """Ends the connection, and a reading under way. May be called again, from any thread."""
        self._admin = None
        self._connection.pop_all().close()


def _metrics(config: "Config") -> tuple[str, int]:
    address = config.listen.metrics
    return _EVERYWHERE.get(address.host, address.host), address.port


def _open(link: str, ending: ExitStack) -> None:
    """Opens the link where there is a browser to open it in: on a desktop, or where BROWSER names one. Other users can read the
    arguments of its process, so those name a file that leads to the link, which this user alone can read."""
    known = environment()
    if not (known.get("BROWSER") or known.get("DISPLAY") or known.get("WAYLAND_DISPLAY")):
        return
    import webbrowser  # noqa: PLC0415

    directory = tempfile.mkdtemp(prefix="equabot-", dir=known.get("XDG_RUNTIME_DIR") or None)  # 0700
    ending.callback(shutil.rmtree, directory, ignore_errors=True)
    file = Path(directory, "dashboard.html")
    file.touch(0o600)
    file.write_text(_OPENER.format(link))
    # Some are waited for until they are closed.
    Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
