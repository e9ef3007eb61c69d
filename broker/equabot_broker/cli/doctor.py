"""`equabot doctor`: reports every problem with the command that fixes it. `--fix` applies the fixes that are safe."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equabot_broker.cli.findings_view import STYLES, counted, show_findings
from equabot_broker.cli.problems import Problem, plain, problem
from equabot_broker.cli.storing import CommandContext, faults
from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config

_MOST_SEVERE_FIRST = list(STYLES)


def add_parser(subparsers: Any, **described: str) -> None:
    """`doctor [--fix] [--json]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "doctor",
        description="Check the stores, permissions, locks, logins, sources and the broker. The exit code is 1 if a finding is"
        " an error, else 0.",
        examples=("equabot doctor", "equabot doctor --fix", "equabot doctor --json"),
        exits={0: "No finding is an error.", 1: "A finding is an error."},
        **described,
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="Restrict permissions, seal and migrate stores, remove stale locks, and refresh logins that are due.",
    )
    parser.add_argument(
        "--accept-restored",
        action="store_true",
        help="After restoring a backup, accept sealed stores that are older than the newest one seen or were moved.",
    )
    parser.add_argument(
        "--json", action="store_true", help="Print one JSON document with the findings, the counts and what --fix did."
    )
    add_places(parser)
    parser.set_defaults(run=run, agent=None)


def run(args: Namespace) -> int:
    """Prints the findings, the most severe first. With `--fix`, it applies the safe fixes before."""
    from equabot_broker.config.load import load  # noqa: PLC0415
    from equabot_broker.schema.faults import ConfigurationFaults  # noqa: PLC0415

    try:
        config = load(config_path=args.config, run_dir=args.run_dir, environ=environment())
    except ConfigurationFaults as refused:
        distinct = [problem(Severity.ERROR, fault.where, ": ".join(filter(None, (fault.path, fault.message))))
                  for fault in refused.faults]  # fmt: skip
        return _print_findings(distinct, _Done(), as_json=args.json)
    done = _Done(silent=args.json)
    if args.accept_restored:
        _accept(config, done)
    problems = list(_examine(args, config))
    if args.fix and _fix(problems, done):
        problems = list(_examine(args, config))
    return _print_findings(problems, done, as_json=args.json)


@dataclass(slots=True)
class _Done:
    """What `--fix` and `--accept-restored` did and could not do. Without `--json` each step is printed at once."""

    silent: bool = False
    fixed: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def fix(self, what: str, *, word: str = "fixed") -> None:
        """Records a completed step, once."""
        if what in self.fixed:
            return
        self.fixed.append(what)
        if not self.silent:
            output.say(f"{word}: {what}")

    def fail(self, subject: str, why: str) -> None:
        """Records a step that failed."""
        self.failed.append({"subject": subject, "message": why})
        output.complain(f"{subject} could not be fixed: {why}")


def _examine(args: Namespace, config: "Config") -> Iterator[Problem]:
    from equabot_broker.cli.doctor_files import files  # noqa: PLC0415
    from equabot_broker.cli.doctor_logins import logins  # noqa: PLC0415
    from equabot_broker.cli.doctor_owners import owners  # noqa: PLC0415
    from equabot_broker.cli.doctor_stores import stores  # noqa: PLC0415
    from equabot_broker.cli.doctor_surroundings import surroundings  # noqa: PLC0415

    yield from surroundings(config)
    yield from owners(config)
    yield from files(config, Path.cwd())
    yield from stores(config)
    yield from logins(args, config)


def _accept(config: "Config", done: _Done) -> None:
    """Accepts restored stores, and prints which. The examination reports the ones that cannot be accepted."""
    from equabot_broker.cli.doctor_stores import kept_agents  # noqa: PLC0415

    for agent in kept_agents(config):
        store = CommandContext(config, agent).store
        with suppress(Failure), faults():
            if config.seal_key_file is not None and store.accept():
                done.fix(f"{store.path} with its present content; every other copy of it is refused", word="accepted")


def _fix(problems: Sequence[Problem], done: _Done) -> bool:
    """Applies the safe fixes and prints each. Returns whether anything was fixed."""
    before = len(done.fixed)
    for found in problems:
        if found.fix is None:
            continue
        try:
            done.fix(found.fix())
        except (Failure, OSError) as error:
            why = error.message if isinstance(error, Failure) else error.strerror or type(error).__name__
            done.fail(found.finding.subject, why)
    return len(done.fixed) > before


def _print_findings(problems: Sequence[Problem], done: _Done, *, as_json: bool) -> int:
    found = _once([problem.finding for problem in problems])
    counts = {severity: sum(finding.severity is severity for finding in found) for severity in _MOST_SEVERE_FIRST}
    code = Exit.FAILED if counts[Severity.ERROR] else Exit.DONE
    if as_json:
        fixable = {(problem.finding.subject, problem.finding.remedy) for problem in problems if problem.fix is not None}
        output.report({
            "findings": [plain(one) | {"fixable": (one.subject, one.remedy) in fixable} for one in found],
            "counts": {severity.value: count for severity, count in counts.items()},
            "fixed": done.fixed,
            "not_fixed": done.failed,
        })  # fmt: skip
        return code
    if output.for_people():
        show_findings(found)
    else:
        output.table([(one.severity.value, one.subject, one.message, one.remedy) for one in found])
    output.say(", ".join(counted(severity, count) for severity, count in counts.items() if count) or "no problems found")
    return code


def _once(found: Sequence[Finding]) -> list[Finding]:
    """The findings without repetitions, the most severe first. Sources repeat what the examination of the files has found."""
    distinct: list[Finding] = []
    for finding in found:
        message = finding.message.removeprefix(finding.subject).lstrip(": ")
        if not any(finding.subject == known.subject and message.startswith(known.message) for known in distinct):
            distinct.append(replace(finding, message=message))
    return sorted(distinct, key=lambda finding: _MOST_SEVERE_FIRST.index(finding.severity))
