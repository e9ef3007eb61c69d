"""`equabot serve`: runs the broker."""

import logging
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from equabot_broker.cli.arguments import configuration
from equabot_broker.cli.hangups import Hangups
from equabot_broker.envoy.options import GatewayMode
from equabot_cli.arguments import add_places
from equabot_cli.exits import Exit, Failure
from equabot_cli.hardening import set_limits
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config


def add_parser(subparsers: Any, **described: str) -> None:
    """`serve [--config F] [--run-dir D] [--gateway] [-v]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "serve",
        examples=("equabot serve", "equabot serve --config equabot.yaml --gateway"),
        exits={64: "The configuration has faults, which are all listed."},
        **described,
    )
    add_places(parser)
    parser.add_argument("--gateway", action="store_true", help="Also run the gateway: Envoy as a child process of the broker.")
    parser.set_defaults(run=run, serving=True)


def run(args: Namespace) -> int:
    """Runs until a signal stops it. Raises Failure for a configuration with faults, and if the broker cannot start."""
    hangups = Hangups()
    config = _with_gateway(args, configuration(args))
    set_limits()

    def reread() -> "Config":
        again = load(config_path=args.config, run_dir=args.run_dir, environ=environment(), default_run_dir=config.run_dir)
        return _with_gateway(args, again)

    import asyncio  # noqa: PLC0415

    from equabot_broker.bootstrap.serve import serve  # noqa: PLC0415
    from equabot_broker.config.load import load  # noqa: PLC0415
    from equabot_broker.domain.errors import CannotStart  # noqa: PLC0415

    try:
        asyncio.run(serve(config, redactor=args.redactor, reread=reread, on_hangup=hangups.subscribe))
    except CannotStart as reason:
        raise Failure(str(reason)) from None
    except Exception:
        logging.getLogger(__name__).critical("the broker exits, because of a defect", exc_info=True)
        raise
    return Exit.DONE


def _with_gateway(args: Namespace, config: "Config") -> "Config":
    return replace(config, gateway=replace(config.gateway, mode=GatewayMode.CHILD)) if args.gateway else config
