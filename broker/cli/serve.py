"""`equabot serve`: the broker itself."""

import logging
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Any

from broker.cli.arguments import add_places, configuration
from broker.cli.exits import Exit, Failure
from broker.cli.hardening import set_limits
from broker.envoy.options import GatewayMode


def add_parser(subparsers: Any, **described: str) -> None:
    """`serve [--config F] [--run-dir D] [--gateway] [-v]`."""
    parser: ArgumentParser = subparsers.add_parser("serve", **described)
    add_places(parser)
    parser.add_argument("--gateway", action="store_true", help="run the gateway too: Envoy, as a child of the broker")
    parser.set_defaults(run=run, serving=True)


def run(args: Namespace) -> int:
    """Runs until it is told to stop. Raises Failure for a configuration that is refused and for what keeps it from starting."""
    config = configuration(args)
    if args.gateway:
        config = replace(config, gateway=replace(config.gateway, mode=GatewayMode.CHILD))
    set_limits()

    import asyncio  # noqa: PLC0415

    from broker.bootstrap import serve  # noqa: PLC0415
    from broker.domain.errors import CannotStart  # noqa: PLC0415

    try:
        asyncio.run(serve(config, redactor=args.redactor))
    except CannotStart as reason:
        raise Failure(str(reason)) from None
    except Exception:
        logging.getLogger(__name__).critical("the broker ends: it has a defect", exc_info=True)
        raise
    return Exit.DONE
