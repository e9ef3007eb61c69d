"""The login of Claude's program, copied into the store of `main` as the seed's system does, for programs that read only that.

The broker itself follows Claude's own file: this is for others, and for the time when that file is gone.
"""

from pathlib import Path

from broker.domain.auth_document import Malformed
from broker.domain.discovery import Rules
from broker.domain.tool_logins import CLAUDE, SIZE_MAX, read_login, with_login
from broker.ports import Clock, StoreFault
from broker.storage._store_file import read_trusted
from broker.storage.auth_profiles import AuthProfiles


def sync_claude(file: Path, store: AuthProfiles, *, rules: Rules, clock: Clock) -> bool:
    """Copies the login, without its refresh token, where it is good and newer than what the store has. Returns whether it was.

    A file that is not there, or is of no use, is nothing to copy. Raises StoreFault for a store that cannot be read or written.
    """
    try:
        text = read_trusted(file, limit=SIZE_MAX, shown=file)
        unit = read_login(CLAUDE, text or b"{}", changed_at=0.0, rules=rules, source="", unit="", origin=str(file))
    except (OSError, StoreFault, Malformed):
        return False
    login = next(iter(unit.profiles), None)
    before = store.read()
    now = clock.now()
    if login is None or with_login(before, login, now=now) == before:
        return False
    return store.edit(lambda document: with_login(document, login, now=now)) != before
