"""Logins that are kept in a Kubernetes Secret: its data keys as one store, and what refreshing leaves in it.

The marks of a refresh (`domain.relogin`) stand in annotations, by the names of the entries, where `kubectl describe` shows them
and every broker sees them; data keys change only where tokens do. A third annotation is of Secrets alone: the digests of the
last refresh tokens that were exchanged or given up, for whoever applies an older manifest puts such a token back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from equabot_broker.domain.relogin import SUPERSEDED
from equabot_broker.domain.untrusted_json import LARGEST, Json, Malformed, decode
from equabot_broker.formats.auth_document import PENDING, REAUTH, AuthDocument, parse, serialize
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.formats.tool_logins import CLAUDE, login_entry, with_login_entry

STORE: Final = "auth-profiles.json"
CLAUDE_LOGIN: Final = ".credentials.json"

PENDING_MARK: Final = "equabot.dev/pending-refresh"
REAUTH_MARK: Final = "equabot.dev/reauth-required"
SPENT_MARK: Final = "equabot.dev/spent-refresh"

_FIELDS: Final = {PENDING_MARK: PENDING, REAUTH_MARK: REAUTH}
_SPENT_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class SecretLogins:
    """A Secret's data keys that hold logins, and its annotations. `claude` is the profile that Claude's login makes; empty
    where that is not the broker's to refresh. Every method raises Malformed for what it cannot understand."""

    values: Mapping[str, bytes] = field(repr=False)
    annotations: Mapping[str, str] = field(repr=False)  # `kubectl apply` leaves all of the data in one of them
    claude: str = ""

    def document(self) -> AuthDocument:
        """The logins as a store, with everything that is known of their refresh tokens."""
        stored = _read(parse, self.values, STORE) or AuthDocument()
        entries = dict(stored.entries)
        if self.claude and self.claude not in entries and (login := _read(_claude, self.values, CLAUDE_LOGIN)):
            entries[self.claude] = login
        return marked(AuthDocument({**stored.raw, "profiles": entries}), self.annotations)

    def replaced(self, document: AuthDocument) -> "SecretLogins":
        """The same Secret with these logins. Keys whose tokens are the same stay as they are, byte for byte."""
        stored = _read(parse, self.values, STORE) or AuthDocument()
        before = self.document()
        entries = {name: entry for name, entry in stored.entries.items() if name in document.entries}
        values = dict(self.values)
        marks = {annotation: _noted(self.annotations, annotation) for annotation in (*_FIELDS, SPENT_MARK)}
        for name, entry in document.entries.items():
            was = before.entries.get(name)
            if entry == was:
                continue
            spent = [of for of in (*_doubted(marks, name), digest(was or {})) if of not in ("", digest(entry))]
            marks[SPENT_MARK][name] = list(dict.fromkeys((*_spent(marks, name), *spent)))[-_SPENT_MAX:]
            for annotation, key in _FIELDS.items():
                marks[annotation][name] = entry.get(key)
            plain = {key: value for key, value in entry.items() if key not in _FIELDS.values()}
            if name == self.claude and name not in entries:
                values[CLAUDE_LOGIN] = with_login_entry(CLAUDE, values[CLAUDE_LOGIN], plain)
            else:
                entries[name] = plain
        raw = {**document.raw, "profiles": entries}
        if raw != stored.raw:
            values[STORE] = serialize(AuthDocument(raw))
        others = {key: text for key, text in self.annotations.items() if key not in marks}
        written = {key: text for key, mark in marks.items() if (text := _written(mark))}
        return SecretLogins(values, others | written, self.claude)


def marked(document: AuthDocument, annotations: Mapping[str, str]) -> AuthDocument:
    """The store with what the annotations say of its refresh tokens. Raises Malformed."""
    marks = {annotation: _noted(annotations, annotation) for annotation in (*_FIELDS, SPENT_MARK)}
    entries = {name: _marked(name, entry, marks) for name, entry in document.entries.items()}
    return AuthDocument({**document.raw, "profiles": entries})


def _marked(name: str, entry: Any, marks: Mapping[str, Json]) -> Any:
    of = digest(entry) if isinstance(entry, dict) else ""
    if not of:
        return entry
    noted = {key: marks[annotation].get(name) for annotation, key in _FIELDS.items()}
    if of in _spent(marks, name):
        noted[REAUTH] = {"code": SUPERSEDED, "digest": of}
    return entry | {key: mark for key, mark in noted.items() if isinstance(mark, dict)}


def _spent(marks: Mapping[str, Json], name: str) -> list[str]:
    found = marks[SPENT_MARK].get(name)
    return [of for of in found if isinstance(of, str)] if isinstance(found, list) else []


def _doubted(marks: Mapping[str, Json], name: str) -> list[str]:
    """The tokens that are noted as sent or refused; somebody may have logged in since."""
    found = (marks[annotation].get(name) for annotation in _FIELDS)
    return [str(mark.get("digest", "")) for mark in found if isinstance(mark, dict)]


def _noted(annotations: Mapping[str, str], annotation: str) -> Json:
    if annotation not in annotations:
        return {}
    try:
        found = decode(annotations[annotation].encode("utf-8", "surrogatepass"), largest=LARGEST)
    except Malformed:
        found = None
    if not isinstance(found, dict):
        raise Malformed(f"its annotation {annotation} is no JSON object any more: log in anew, and remove the annotation")
    return found


def _written(mark: Json) -> str:
    """The annotation's text; empty where there is nothing to say. What is said of others stays: Claude's login is not always
    looked at."""
    said = {name: of for name, of in mark.items() if of}
    return json.dumps(said, separators=(",", ":"), sort_keys=True) if said else ""


def _claude(text: bytes) -> Json | None:
    return login_entry(CLAUDE, text)


def _read(read: Any, values: Mapping[str, bytes], key: str) -> Any:
    if key not in values:
        return None
    try:
        return read(values[key])
    except Malformed as malformed:
        fault = Malformed(f"{key} is not usable: {malformed}")
    raise fault
