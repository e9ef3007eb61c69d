"""Logins in a Kubernetes Secret: its data keys as one store, and the marks of refreshes (ADR 13).

The marks of a refresh are in annotations, by the names of the entries. So `kubectl describe` shows them, all brokers see them,
and data keys change only with their tokens. A third annotation exists for Secrets only: the digests of the last refresh tokens
that were exchanged or refused, because applying an older manifest restores such a token.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from equabot_broker.domain.relogin import SUPERSEDED
from equabot_broker.formats.auth_document import PENDING, REAUTH, AuthDocument, parse, serialize
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.formats.tool_logins import CLAUDE, login_entry, with_login_entry
from equabot_broker.parsing.untrusted_json import LARGEST, Json, Malformed, decode

STORE: Final = "auth-profiles.json"
CLAUDE_LOGIN: Final = ".credentials.json"

PENDING_MARK: Final = "equabot.dev/pending-refresh"
REAUTH_MARK: Final = "equabot.dev/reauth-required"
SPENT_MARK: Final = "equabot.dev/spent-refresh"

_FIELDS: Final = {PENDING_MARK: PENDING, REAUTH_MARK: REAUTH}
_SPENT_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class SecretLogins:
    """The data keys of a Secret with logins, and its annotations. `claude` is the profile of Claude's login; empty if the
    broker does not refresh it. Each method raises Malformed for content that is not valid."""

    values: Mapping[str, bytes] = field(repr=False)
    annotations: Mapping[str, str] = field(repr=False)  # `kubectl apply` keeps a copy of all data in such an annotation
    claude: str = ""

    def document(self) -> AuthDocument:
        """The logins as a store, with all marks on their refresh tokens."""
        stored = _read(parse, self.values, STORE) or AuthDocument()
        entries = dict(stored.entries)
        if self.claude and self.claude not in entries and (login := _read(_claude, self.values, CLAUDE_LOGIN)):
            entries[self.claude] = login
        return marked(AuthDocument({**stored.raw, "profiles": entries}), self.annotations)

    def replaced(self, document: AuthDocument) -> "SecretLogins":
        """The Secret with these logins. Keys whose tokens did not change stay byte for byte the same."""
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
    """The store with the annotations' marks on its refresh tokens. Raises Malformed."""
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
    """The tokens that are marked as sent or refused; the user may have logged in since."""
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
        raise Malformed(f"its annotation {annotation} is not a JSON object: log in again, and remove the annotation")
    return found


def _written(mark: Json) -> str:
    """The annotation's text; empty without content. Marks of other logins stay, because Claude's login is not always read."""
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
