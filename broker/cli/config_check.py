"""`equabot config check`: whether a broker would accept its configuration, without starting one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from broker.cli import output
from broker.cli.arguments import add_places
from broker.cli.exits import Exit
from broker.cli.surroundings import environment

if TYPE_CHECKING:
    from broker.config.model import Config


def add_parser(subparsers: Any, **described: str) -> None:
    """`config check [--config F] [--run-dir D]`."""
    parser: ArgumentParser = subparsers.add_parser("config", **described)
    check: ArgumentParser = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "check",
        help="tell every fault of a configuration, or what it comes to",
        description="Exits with 0 for a configuration that a broker would accept, 64 for one that it would refuse.",
    )
    add_places(check)
    check.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints a summary, or every fault on a line of its own to standard error, where warnings go as well."""
    from broker.config.faults import ConfigurationFaults  # noqa: PLC0415
    from broker.config.load import load  # noqa: PLC0415

    try:
        config = load(config_path=args.config, run_dir=args.run_dir, environ=environment())
    except ConfigurationFaults as refused:
        for fault in refused.faults:
            output.fault(str(fault))
        return Exit.USAGE
    output.say(f"{config.file}: sound" if config.file else "no configuration file: every default applies")
    output.table(_summary(config), indent=2)
    for warning in (*_warnings(config), *_around(config)):
        output.fault(f"warning: {warning}")
    return Exit.DONE


def _summary(config: "Config") -> list[tuple[str, str]]:
    listen = config.listen
    return [
        ("run_dir", str(config.run_dir)),
        ("state_path", str(config.state_path)),
        ("listen", f"health {listen.health}, metrics {listen.metrics}, gateway {listen.gateway}"),
        ("agents", ", ".join(config.policies.agents)),
        ("sources", ", ".join(" ".join((spec.kind, *map(str, spec.options.values()))) for spec in config.sources)),
        ("required", ", ".join(config.required) or "nothing"),
    ]


def _around(config: "Config") -> Iterator[str]:
    """What in this environment would hurt a broker with this configuration."""
    from broker.cli.doctor_surroundings import surroundings  # noqa: PLC0415

    for found in surroundings(config):
        finding = found.finding
        yield f"{finding.subject} {finding.message}" + (f": {finding.remedy}" if finding.remedy else "")


def _warnings(config: "Config") -> Iterator[str]:
    """Providers that have an address and that the gateway does not serve, because they have no list of requests."""
    for provider in config.catalog.providers.values():
        if provider.base_url and provider.gateway_fault:
            yield f"provider {provider.id!r} has raw leases only: {provider.gateway_fault}"
