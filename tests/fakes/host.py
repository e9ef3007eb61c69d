"""A person's host: a home of its own, and the command line in this process or at a terminal."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from equabot_cli.main import main
from tests.fakes.terminal import Person

EQUABOT: Final = (sys.executable, "-m", "equabot_broker")
KEY: Final = "sk-ant-api03-" + "k3y" * 30
TOKEN: Final = "sk-ant-oat01-" + "t0k" * 30


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Host:
    """`home` is both the user's and the broker's. No broker runs, and no credential comes from outside."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "EQUABOT_HOME": str(home),
            "EQUABOT_RUN_DIR": str(home / "run"),
        }
        self._patch = patch

    def run(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Done:
        """A command, without a terminal."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = io.StringIO(), io.StringIO()
        with self._patch.context() as patch:
            for name in os.environ:
                patch.delenv(name)
            for name, value in (self.environ | environ).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main(arguments)
        return Done(code, out.getvalue(), err.getvalue())

    def at_terminal(self, *arguments: str, **environ: str) -> Person:
        """A command that a person runs."""
        return Person([*EQUABOT, *arguments], environ=self.environ | environ)

    def store_path(self, agent: str = "main") -> Path:
        """Where the agent's store is."""
        return self.home / "agents" / agent / "agent" / "auth-profiles.json"

    def store(self, agent: str = "main") -> Any:
        """What is in the agent's store."""
        return json.loads(self.store_path(agent).read_text())

    def write_store(self, content: object, agent: str = "main") -> None:
        """Puts a store there, as another program would."""
        self.store_path(agent).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store_path(agent).write_text(content if isinstance(content, str) else json.dumps(content))
        self.store_path(agent).chmod(0o600)

    @property
    def config(self) -> str:
        """The configuration as it is written."""
        return (self.home / "equabot.yaml").read_text()

    def write_config(self, text: str) -> None:
        """Writes the configuration."""
        (self.home / "equabot.yaml").write_text(text)
