"""A dashboard in one process: the server and what feeds it, until a signal."""

import asyncio
import signal
from collections.abc import Callable

from equabot_broker.dashboard.access import PageAccess
from equabot_broker.dashboard.board import Board
from equabot_broker.dashboard.document import read_document
from equabot_broker.dashboard.server import HOST, DashboardServer
from equabot_broker.dashboard.watching import DashboardSources, PageFeed


async def run(
    sources: DashboardSources,
    *,
    port: int,
    redact: Callable[[str], str],
    ready: Callable[[str], None],
    close: Callable[[], None],
) -> None:
    """Serves until SIGINT or SIGTERM. `ready` gets the link once the server listens; `close` ends a reading under way. Raises
    CannotStart."""
    access, board = PageAccess(), Board(redact=redact)
    server = DashboardServer(port=port, access=access, board=board, document=read_document())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(PageFeed(sources, board).run())
        # The token is in the fragment: browsers send it to no server, and so to no log and in no Referer (ADR 48).
        ready(f"http://{HOST}:{server.port}/#{access.token}")
        await server.serve(stop)
        close()
        feed.cancel()
