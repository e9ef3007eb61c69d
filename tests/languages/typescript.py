"""The TypeScript client as built for the tests, and programs that use it."""

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.tiers import nodes, require

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "clients" / "typescript"
VERSIONS: Final = ("20", "22")


def build() -> None:
    """Builds the client, if its sources changed. Skips where its tier is missing. Test processes build one at a time."""
    require("typescript")
    sources = sorted([*CLIENT.glob("src/**/*.ts"), *CLIENT.glob("scripts/*"), *CLIENT.glob("*.json")])
    made_from = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    with (CLIENT / "node_modules" / "built-from").open("a+") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)
        stamp.seek(0)
        if stamp.read() == made_from and (CLIENT / "dist" / "index.mjs").exists():
            return
        for command in (["node_modules/typescript/bin/tsc", "-p", "."], ["scripts/esm.mjs"]):
            ran = subprocess.run([nodes() / "node-22", *command], cwd=CLIENT, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stdout + ran.stderr
        stamp.truncate(0)
        stamp.write(made_from)


def evaluate(program: str, environ: Mapping[str, str] | None = None) -> Any:
    """What a program prints as JSON. Its body is that of an asynchronous function, and `client` is the package."""
    text = f"""(async () => {{ const client = require("@equabot/client"); {program} }})()
        .then((result) => console.log(JSON.stringify(result)))"""
    ran = subprocess.run(
        [nodes() / "node-22", "-e", text],
        cwd=CLIENT,
        env=environ or {},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)
