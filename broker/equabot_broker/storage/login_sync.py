"""Keeps the login of another tool in a profile store as well.

OpenClaw copies the login of Claude into the store of `main`, for programs that read only that store. A login that the broker
refreshes is refreshed in the store and written back to the file of the tool: the newer side updates the other.
"""

from functools import partial
from pathlib import Path

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.tool_logins import SIZE_MAX, Tool, read_login, refresh_token, with_login, without_copy, written_back
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.ports import Clock, StoreFault
from equabot_broker.storage._store_file import read_trusted
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.edited_file import Unwritable, edit_file


def forget_copy(tool: Tool, file: Path, source: str, store: AuthProfiles, *, rules: DiscoveryRules) -> bool:
    """Removes the copy of the tool's login from the store if the file of the tool holds no login any more.

    Returns whether a copy was removed. An entry that a person stored stays: it is not marked as a copy of `source`.
    Raises StoreFault.
    """
    try:
        text = read_trusted(file, limit=SIZE_MAX, shown=file) or b"{}"
        unit = read_login(tool, text, changed_at=0.0, rules=rules, source=source, unit="", origin=str(file))
    except (OSError, StoreFault, Malformed):
        return False
    if unit.profiles:
        return False
    forget = partial(without_copy, profile_id=tool.profile_id, source=source)
    before = store.read()
    return forget(before) != before and store.edit(forget) != before


def sync_login(tool: Tool, file: Path, source: str, store: AuthProfiles, *, rules: DiscoveryRules, clock: Clock) -> bool:
    """Copies the tool's login into the store if it is valid and newer than the stored one. Returns whether it copied.

    It copies the refresh token only if the broker refreshes the login; then it also writes a newer login of the store back
    to the file. If the file is missing or malformed, nothing happens: the source of the file reports that. Raises
    StoreFault for a store that cannot be read or written, or a file that cannot be written.
    """
    ours = tool.profile_id not in rules.foreign_logins
    try:
        changed_at = file.stat().st_mtime
        text = read_trusted(file, limit=SIZE_MAX, shown=file) or b"{}"
        unit = read_login(tool, text, changed_at=changed_at, rules=rules, source=source, unit="", origin=str(file))
        refresh = refresh_token(tool, text) if ours else None
    except (OSError, StoreFault, Malformed):
        return False
    if not unit.profiles:
        return False
    copy = partial(with_login, login=unit.profiles[0], refresh=refresh, now=clock.now())
    before = store.read()
    if copy(before) != before:
        return store.edit(copy) != before
    if ours and written_back(tool, text, before.entries.get(tool.profile_id)) != text:
        _write_back(tool, file, store)
    return False


def _write_back(tool: Tool, file: Path, store: AuthProfiles) -> None:
    def change(content: bytes, document: AuthDocument) -> bytes:
        try:
            return written_back(tool, content, document.entries.get(tool.profile_id))
        except Malformed:
            return content  # the tool is writing a newer login at this moment

    with store.locked() as locked:  # no refresh runs while this process holds the lock
        try:
            edit_file(file, partial(change, document=locked.document))
        except Unwritable as fault:
            raise StoreFault(str(fault)) from None
