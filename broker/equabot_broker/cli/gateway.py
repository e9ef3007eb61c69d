"""`equabot gateway config`: prints the configuration of Envoy."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from equabot_broker.cli.arguments import configuration
from equabot_cli.arguments import add_places
from equabot_cli.exits import Exit


def add_parser(subparsers: Any, **described: str) -> None:
    """`gateway config [--json] [--config F] [--run-dir D]`."""
    parser: ArgumentParser = subparsers.add_parser("gateway", **described)
    config: ArgumentParser = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "config",
        help="Print the configuration of Envoy.",
        description="Print the bootstrap configuration of Envoy, which follows from the providers and the configuration. It"
        " contains no secret. A broker with a gateway writes the same to <run_dir>/gateway/envoy.yaml, with the routes in a"
        " separate file.",
        examples=("equabot gateway config", "equabot gateway config --json"),
    )
    config.add_argument("--json", action="store_true", help="Print JSON instead of YAML.")
    add_places(config)
    config.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints the configuration. Needs no broker."""
    from equabot_broker.config.gateway import gateway_of  # noqa: PLC0415
    from equabot_broker.envoy.bootstrap_config import as_yaml, bootstrap_config  # noqa: PLC0415

    made = bootstrap_config(gateway_of(configuration(args)))
    print(json.dumps(made, indent=2) if args.json else as_yaml(made).rstrip("\n"))
    return Exit.DONE
