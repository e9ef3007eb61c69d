"""Runs the rows, prints one table, keeps the numbers as JSON.

python -m benchmarks [ROW…]        rows: acquire, client, rotation, start, memory, growth, kubernetes, gateway
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import acquire, client, gateway, growth, kubernetes, memory, rotation, start
from benchmarks._row import Row

_WIDTH = 56
RESULTS = Path(__file__).with_name("results")
FAMILIES: dict[str, Callable[[], list[Row]]] = {
    "start": start.rows,
    "acquire": acquire.rows,
    "client": client.rows,
    "rotation": rotation.rows,
    "memory": memory.rows,
    "growth": growth.rows,
    "kubernetes": kubernetes.rows,
    "gateway": gateway.rows,
}


def main(names: list[str]) -> int:
    """Runs the named families, or all."""
    unknown = set(names) - FAMILIES.keys()
    if unknown:
        print(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}", file=sys.stderr)
        return 64
    rows: list[Row] = []
    print(f"{'':{_WIDTH}}  {'measured':>14}  {'aim':>12}")
    for name in names or FAMILIES:
        for row in FAMILIES[name]():
            rows.append(row)
            mark = "" if row.met is None else ("  ok" if row.met else "  MISSED")
            print(f"{row.what:{_WIDTH}}  {row.shown:>14}  {row.aim:>12}{mark}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    RESULTS.mkdir(exist_ok=True)
    record = {
        "commit": commit,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "rows": [row.as_json() for row in rows],
    }
    path = RESULTS / "latest.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"kept in {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
