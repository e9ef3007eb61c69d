"""`equabot config check`: reports whether a broker would accept its configuration. It starts no broker."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from equabot_broker.cli.problems import plain
from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.exits import Exit
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config


def add_parser(subparsers: Any, **described: str) -> None:
    """`config check [--config F] [--run-dir D] [--json]`."""
    parser: ArgumentParser = subparsers.add_parser("config", **described)
    check: ArgumentParser = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "check",
        help="Report every fault of a configuration, or the resulting settings.",
        description="Check a configuration. The exit code is 0 if a broker would accept the configuration, and 64 if not.",
        examples=("equabot config check --config equabot.yaml",),
        exits={0: "A broker would accept the configuration.", 64: "A broker would refuse the configuration."},
    )
    check.add_argument(
        "--json", action="store_true", help="Print one JSON document with the faults, the warnings and the resulting settings."
    )
    add_places(check)
    check.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints a summary, or each fault on its own line on standard error. Warnings also go there. With `--json`, all output
    goes to standard output."""
    from equabot_broker.config.load import load  # noqa: PLC0415
    from equabot_broker.schema.faults import ConfigurationFaults  # noqa: PLC0415

    try:
        config = load(config_path=args.config, run_dir=args.run_dir, environ=environment())
    except ConfigurationFaults as refused:
        if args.json:
            output.report(_document(None, [asdict(fault) for fault in refused.faults], [], file=refused.file))
        else:
            for fault in refused.faults:
                output.fault(str(fault))
        return Exit.USAGE
    warnings = [*_warnings(config), *_around(config)]
    if args.json:
        output.report(_document(config, [], [plain(warning) for warning in warnings], file=str(config.file or "")))
        return Exit.DONE
    output.say(f"{config.file}: valid" if config.file else "no configuration file: the defaults apply")
    output.table(_summary(config), indent=2)
    for warning in warnings:
        remedy = f": {warning.remedy}" if warning.remedy else ""
        output.fault(f"warning: {warning.subject} {warning.message}{remedy}")
    return Exit.DONE


def _document(
    config: "Config | None", faults: list[dict[str, Any]], warnings: list[dict[str, str]], *, file: str
) -> dict[str, Any]:
    """The JSON document. `effective` is null if the configuration is refused."""
    return {
        "valid": config is not None,
        "file": file or None,
        "faults": faults,
        "warnings": warnings,
        "effective": None if config is None else _effective(config),
    }


def _effective(config: "Config") -> dict[str, Any]:
    listen = config.listen
    return {
        "run_dir": str(config.run_dir),
        "state_path": str(config.state_path),
        "listen": {"health": str(listen.health), "metrics": str(listen.metrics), "gateway": str(listen.gateway)},
        "agents": list(config.policies.agents),
        "sources": [f"{spec.kind} {config.kinds[spec.kind].shown(spec.options)}".rstrip() for spec in config.sources],
        "required": list(config.required),
    }


def _summary(config: "Config") -> list[tuple[str, str]]:
    known = _effective(config)
    return [
        ("run_dir", known["run_dir"]),
        ("state_path", known["state_path"]),
        ("listen", ", ".join(f"{name} {address}" for name, address in known["listen"].items())),
        ("agents", ", ".join(known["agents"])),
        ("sources", ", ".join(known["sources"])),
        ("required", ", ".join(known["required"]) or "nothing"),
    ]


def _around(config: "Config") -> Iterator[Finding]:
    """Problems in the environment of this process that a broker with this configuration would have."""
    from equabot_broker.cli.doctor_surroundings import surroundings  # noqa: PLC0415

    for found in surroundings(config):
        yield found.finding


def _warnings(config: "Config") -> Iterator[Finding]:
    """Warnings for providers that have a base URL but no list of allowed requests, so that the gateway does not serve them."""
    for provider in config.catalog.providers.values():
        if provider.base_url and provider.gateway_fault:
            message, subject = f"has raw leases only: {provider.gateway_fault}", f"provider {provider.id!r}"
            yield Finding(severity=Severity.WARNING, subject=subject, message=message)
