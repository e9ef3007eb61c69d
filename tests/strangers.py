"""Programs as another user of the machine."""

import os
import shutil
import subprocess
import sys
from typing import Final

import pytest

OTHER: Final = 54321
"""A user that no one is."""


def as_user(user: int = OTHER) -> tuple[str, ...]:
    """What to put before a program, so that it runs as the user. Skips the test where that is not possible.

    An interpreter that lies in a home of root's is not reachable for others: there the program may pass by file modes, which
    neither gives it another process's memory nor makes it another owner.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to run a program as another user")
    plain = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    reaching = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    for prefix in (plain, (*plain, *reaching)):
        if _runs(prefix):
            return prefix
    pytest.skip("no other user can run this interpreter")


def _runs(prefix: tuple[str, ...]) -> bool:
    tried = [*prefix, sys.executable, "-c", "import equabot_broker.cli.main, equabot_cli.main, grpc, equabot_client"]
    return subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode == 0


def without_rights_of_root() -> tuple[str, ...]:
    """What to put before a program, so that modes of files count for it, as they do for everyone but root."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to take root's rights from a program")
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")
