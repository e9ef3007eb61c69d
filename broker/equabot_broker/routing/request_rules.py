"""Requests that go through the gateway: what a rule lets pass, and the one spelling in which a path is taken at all.

A rule is `[!][METHOD ]/path`: `POST /v1/messages`, `GET /v1/files/{file}/content`, `GET /v1/models*`, `!/organization*`.

- METHOD is one of `METHODS`, or `*` for any; without it the rule is for any method. HEAD counts as GET.
- `{name}` matches one segment or a part of one, never a slash. Where the path ends with it, it does not match a segment that
  names credentials or administration (`token`, `api_keys`, `sessions`…): `GET /v1/files/{file}` is not `GET /v1/files/secrets`.
- `{model}` also matches what models' names have: encoded slashes (`anthropic%2Fclaude`), and the organisation in the name of a
  fine-tuned one (`ft:gpt:my-org::id`). No other name matches an encoded slash.
- `*` and `**` match any characters, slashes too. `* /**` matches everything.
- Everything else matches itself: case and a slash at the end count (`joining` says which path is asked about). A rule with `!`
  matches in any case, with or without it, encoded or not, and without what follows an encoded `;`, `?` or `#` in a segment.

A list lets a request pass that matches a rule without `!` and no rule with it; a list without the former lets nothing pass
(ADR 16).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, unquote_plus

from equabot_broker.domain.provider import allows_any

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
"""What an API is asked with. The others open tunnels, echo what they are sent, or are a browser's."""

_LONGEST: Final = 8192
_PLAIN: Final = "A-Za-z0-9._~-"
_ENCODED: Final = "|".join(
    f"{byte:02X}"
    for byte in range(0x20, 0x100)
    if byte != 0x7F and chr(byte) not in "/\\%" and not re.fullmatch(f"[{_PLAIN}]", chr(byte))
)
"""What may be encoded: nothing that need not (RFC 3986, 6.2.2.2), and nothing that would mean another path once decoded."""
_SLASH: Final = re.compile("%2[Ff]")
_PIECE: Final = rf"(?!\.\.?(?:/|%2[Ff]|$))(?:[!$&'()*+,=:@{_PLAIN}]|%(?i:{_ENCODED}))+"
_PATH: Final = re.compile(rf"(?:/{_PIECE}(?:%2[Ff]{_PIECE})*)+/?|/")
_QUERY: Final = re.compile(r"[!-\"$-~]*")
_OVERRIDE: Final = re.compile(r"_method|\$http.*|(?:x[-_])?(?:http[-_])?method[-_]override", re.IGNORECASE)
"""The parameters in which some servers let a request say that its method or its headers are others."""

_ANY: Final = "*"
_RULE: Final = re.compile(rf"(!?)(?:({'|'.join(sorted(METHODS))}|\*) +)?(/[!-~]*)")
_NAMED: Final = re.compile(r"\{[a-z_]{1,32}\}")
_HOLE: Final = "\0"
_PARAMETER: Final = re.compile("%(?:3[BbFf]|23)[^/]*")
"""What some servers cut off a segment, decoded (`;`, `?`, `#`)."""
_SEGMENT: Final = "(?:[^/%]|%(?!3[AaBbFf]|23|2[Ff])){1,1024}"
"""What `{name}` matches: nothing that is a delimiter once it is decoded (`:`, `;`, `?`, `#`, `/`)."""
_MODEL: Final = "model"
_MODELS: Final = f"{_SEGMENT}(?:%2[Ff]{_SEGMENT}){{1,8}}"
"""What `{model}` matches besides: pieces with encoded slashes between them. `_odd` looks at each piece."""
_WORDS: Final = (
    "access", "account", "activity", "admin", "audit", "auth", "authorize", "billing", "config", "configuration", "credit",
    "deployment", "grant", "impersonate", "integration", "invoice", "jwt", "key", "login", "member", "membership", "org",
    "organisation", "organization", "payment", "permission", "policy", "project", "role", "setting", "sso", "subscription",
    "team", "usage", "user", "vault", "webhook", "whoami", "workspace",
)  # fmt: skip
_PARTS: Final = ("apikey", "credential", "invit", "oauth", "passw", "secret", "session", "signed", "token")
_RESERVED: Final = (
    rf"(?i:{'|'.join(_PARTS)}|(?<![a-z0-9])(?:{'|'.join(_WORDS)})s?(?![a-z0-9]))"
    rf"|(?<=[a-z])(?:{'|'.join(word.title() for word in _WORDS)})s?(?![a-z])"
)
"""Segments that name credentials or administration: parts anywhere, words whole (`api_keys`, `apiKeys`, but not `monkey`)."""
_IS_RESERVED: Final = re.compile(_RESERVED)
_OWNERS: Final = frozenset(
    f"{word}{s}" for word in ("account", "org", "organisation", "organization", "project", "team", "user") for s in ("", "s")
)
"""Words that name whose a model is: `accounts/fireworks/models/llama`."""
_TUNED: Final = (
    rf"ft:[\w.-]{{1,64}}:[\w.-]{{0,64}}:[\w.-]{{0,64}}:(?![\w:-]*(?:{_RESERVED}))[\w-]{{1,64}}(?::ckpt-step-[0-9]{{1,9}})?"
)
"""The name of a fine-tuned model, in which an organisation and a person's word are."""
_TUNED_ENCODED: Final = re.compile(r"(?<=/)ft(?:%3[Aa][\w.-]*)+(?=/|\Z)", re.ASCII)
"""The same as some SDKs encode it. It is judged as if it were not encoded."""
_ROUTE_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v[0-9][a-z0-9]{0,7}")
_DEEPEST: Final = 8


def target_fault(path: str, query: str) -> str:
    """Why a request's target is not taken, for a person; empty: it is. Two spellings of one path would make a rule for one of
    them worth nothing."""
    if len(path) + len(query) > _LONGEST:
        return f"the path is longer than {_LONGEST} characters"
    if not path.startswith("/"):
        return "the target must be a path, not an address"
    if not _is_plain(path):
        return "the path is not in its plain form: no '.' or '..', no '//', no backslash, nothing encoded that need not be"
    if not _QUERY.fullmatch(query):
        return "the query holds characters that have to be encoded"
    return "the query names another method or other headers: send the method in the request line" if _overrides(query) else ""


def _overrides(query: str) -> bool:
    names = (unquote_plus(part.partition("=")[0]) for part in re.split("[&;]", query)) if query else ()
    return any(map(_OVERRIDE.fullmatch, names))


@lru_cache(maxsize=256)  # of paths alone: a query may hold a key, which is not to be kept
def _is_plain(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


def rule(written: str) -> str:
    """A rule in its usual spelling. Raises ValueError, saying what would be right."""
    found = _RULE.fullmatch(written.strip())
    if found is None or not _is_rule_path(found[3]):
        raise ValueError(
            "must be a method and a path, like POST /v1/messages, GET /v1/files/{file}, GET /v1/models* or * /** for"
            " everything, with ! before what is not allowed"
        )
    no, method, path = found.groups()
    return f"{no}{method} {path}" if method and method != _ANY else f"{no}{path}"


def _is_rule_path(path: str) -> bool:
    """Whether some request's path could match; and whether looking is quick: one `{name}` a segment, and none after a star."""
    head, star, tail = path.partition("*")
    named = _NAMED.sub(_HOLE, head)
    if any(segment.count(_HOLE) > 1 for segment in named.split("/")) or _SLASH.search(path):
        return False
    return _is_plain((named + star + tail).replace("*", "x").replace(_HOLE, "x"))


def prefixed(base: str, written: Iterable[str]) -> tuple[str, ...]:
    """The rules with `base` before their paths: `POST /chat` under `/v1` is `POST /v1/chat`."""
    return tuple(one.replace("/", f"{base}/", 1) for one in written)


@dataclass(frozen=True, slots=True)
class RequestRules:
    """A list of rules, ready to be asked. None: it has no such rules."""

    _some: re.Pattern[str] | None
    _none: re.Pattern[str] | None

    def name(self, method: str, path: str) -> bool:
        """Whether a rule that allows names the request; another may forbid it."""
        asked = _TUNED_ENCODED.sub(lambda name: unquote(name[0]), _asked(method, path))
        if self._some is None or self._some.fullmatch(asked) is None:
            return False
        return "%2" not in path or not _odd(path)

    def allow(self, method: str, path: str) -> bool:
        """Whether a request of that method for that path, as the provider receives it, passes."""
        asked = _asked(method, path)
        if self._none is not None:
            # A vendor may not care for a slash at the end either, nor for what is a parameter of a segment once it is decoded.
            forms = {asked, asked.rstrip("/"), _PARAMETER.sub("", asked).rstrip("/")}
            forms |= {_SLASH.sub("/", form) for form in forms}
            forms |= {unquote(form) for form in forms}
            if any(map(self._none.fullmatch, forms)):
                return False
        return self.name(method, path)


def _odd(path: str) -> bool:
    """Whether a piece behind an encoded slash names credentials or administration: to some servers the slash is one."""
    for segment in path.split("/"):
        *owners, last = _SLASH.split(segment)
        if owners and any(map(_IS_RESERVED.search, [*(one for one in owners if one.lower() not in _OWNERS), last])):
            return True
    return False


def _asked(method: str, path: str) -> str:
    return f"{'GET' if method == 'HEAD' else method} {path}"


@lru_cache(maxsize=1024)
def rules(written: tuple[str, ...], base: str = "") -> RequestRules:
    """The rules that `rule` has passed, for a provider whose `base_url` has the path `base`.

    A rule's path is the vendor's (`/v1/models`) or what comes after `base_url` (`/models`). An allowing rule that begins with
    `base` is the former and nothing else: with `/v1` said twice it would let `/v1/v1/models` pass.
    """
    some = [form for one in written if not one.startswith("!") for form in _forms(one, base, once=True)]
    none = [form for one in written if one.startswith("!") for form in _forms(one[1:], base, once=False)]
    # A vendor may not care for the case of a path: what is forbidden is so in every one.
    return RequestRules(_pattern(some, _allowing), _pattern(none, _forbidding, re.IGNORECASE))


def allowed_paths(written: Iterable[str], base: str) -> Iterator[str]:
    """The whole paths of the rules that allow, as the provider would receive them, with `{name}` and `*` in them."""
    for one in written:
        if not one.startswith("!"):
            paths = (form.rpartition(" ")[2] for form in _forms(one, base, once=True))
            yield from (path for path in paths if path.startswith(f"{base}/"))


def narrowing(written: tuple[str, ...], base: str = "") -> RequestRules:
    """The same for a list that narrows another one: without a rule that allows, it takes away only what it forbids."""
    return rules(written if allows_any(written) else ("/**", *written), base)


def _forms(written: str, base: str, *, once: bool) -> tuple[str, ...]:
    path = written.rpartition(" ")[2]
    whole = not base or (once and path.startswith(f"{base}/"))
    return (written,) if whole else (written, *prefixed(base, [written]))


def _pattern(
    written: Iterable[str], path_pattern: Callable[[str], str], flags: re.RegexFlag = re.NOFLAG
) -> re.Pattern[str] | None:
    forms = []
    for one in written:
        method, _, path = one.rpartition(" ")
        method = "GET" if method == "HEAD" else method
        forms.append(f"{method or '[A-Z]+'} {path_pattern(path)}")
    return re.compile("|".join(forms), flags) if forms else None


def _allowing(path: str) -> str:
    head, brace, name = path.rpartition("{") if path.endswith("}") else (path, "", "")
    guarded = f"(?![^/]*(?:{_RESERVED})){_SEGMENT}" if brace else ""
    if name == f"{_MODEL}}}":
        guarded = f"(?:{guarded}|{_MODELS}|{_TUNED})" if head.endswith("/") else f"(?:{guarded}|{_MODELS})"
    return _starred(head, _SEGMENT, model=f"(?:{_SEGMENT}|{_MODELS})") + guarded


def _forbidding(path: str) -> str:
    return _starred(path, "[^/]+")


def _starred(path: str, segment: str, *, model: str = "") -> str:
    """Each star takes as little as it can and never more (`(?>…)`): it loses no match by that, and no path, however it was
    made, keeps the broker busy."""
    head, *tail = path.split("*")
    literal, names = _NAMED.split(head), _NAMED.findall(head)
    between = (model if model and name == f"{{{_MODEL}}}" else segment for name in names)
    first = "".join(f"{_literal(text)}{matched}" for text, matched in zip(literal, [*between, ""], strict=True))
    if not tail:
        return first
    others = [re.escape(part) for part in tail]
    return first + "".join(f"(?>.*?{part})" for part in others[:-1] if part) + f".*{others[-1]}"


def _literal(text: str) -> str:
    """A colon may come encoded: to vendors it is the same."""
    return re.escape(text).replace(":", "(?::|%3[Aa])")


@lru_cache(maxsize=256)  # a path may be long
def route(path: str) -> str:
    """The path without what makes it one of its kind, for logs and metrics: `/v1/files/file_01` → `/v1/files/*`. There are as
    many of them as an API has, not as many as there are requests."""
    words = path.split("/")
    told = [word if _ROUTE_WORD.fullmatch(word) or not word else _verb(word) for word in words[: _DEEPEST + 1]]
    return "/".join(told) + ("/…" if len(words) > _DEEPEST + 1 else "")


def _verb(word: str) -> str:
    """Google's `models/gemini-2.5:generateContent` ends in what is done."""
    _, colon, verb = word.rpartition(":")
    return f"*:{verb}" if colon and verb.isalpha() and len(verb) <= 32 else "*"
