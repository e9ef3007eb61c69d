"""Reads values from the text of the configuration. Each function takes the text as written, and raises `ValueRefused` with
the form that is expected."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from ipaddress import ip_address
from typing import Final, NamedTuple, TypeVar

from equabot_broker.domain.masking import masked
from equabot_broker.routing.request_rules import rule
from equabot_broker.schema.faults import ValueRefused, is_credential, quote

E = TypeVar("E", bound=Enum)

TOKEN_FILE: Final = "token_file"
"""The key of a workload identity that is a path. The other keys are identifiers."""

_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in _SECONDS))
_LONGEST: Final = 3650 * 86400.0
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_AGENT: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62})")
_SERVICE_ACCOUNT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_PROVIDER: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62})")
_PROFILE_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,126})")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_LISTED: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._$-]{0,63}\*?|\*")
_URL: Final = re.compile(r"https?://[A-Za-z0-9\[][A-Za-z0-9.:\]-]*(?:/[A-Za-z0-9._~/%:+-]*)?")
_KUBE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_KUBE_NAME_MAX: Final = 253
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126})")
_SIZE: Final = re.compile("([0-9]{1,12})(Ki|Mi|Gi|k|M|G)?")
_UNITS: Final = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}
_RATE: Final = re.compile(r"([0-9]{1,6})/([smh])")
_RESERVED_AGENTS: Final = ("admin", "gateway")


class Address(NamedTuple):
    """Where to listen. Port 0 is any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def text(written: str) -> str:
    """Text on one line. It is not empty and has no control characters."""
    if not written or not written.isprintable():
        raise ValueRefused("must be text on one line, without control characters, and not empty")
    return written


def request(written: str) -> str:
    """A method and a path: `POST /v1/messages`, `GET /v1/models*`, `* /**`. `!` before it forbids the request."""
    shown = text(written)
    try:
        return rule(shown)
    except ValueError as error:
        raise ValueRefused(f"{error}, not {quote(written)}") from None


def websocket(written: str) -> str:
    """A path on which a WebSocket may be opened, as `/v1/realtime`. `!` before it forbids the path."""
    made = request(written)
    if made.removeprefix("!").partition("/")[0].strip() not in ("", "GET"):
        raise ValueRefused(f"must be a path, like /v1/realtime, because a WebSocket is opened with GET, not {quote(written)}")
    return made


def affix(written: str) -> str:
    """The text before a secret in a header. It may be empty or end in a space."""
    if not written.isprintable():
        raise ValueRefused("must be text on one line, without control characters")
    return written


def path(written: str) -> str:
    """A path. `~/` is the home directory of the broker's user. A relative path starts in the directory of the file."""
    if text(written).startswith("~") and written != "~" and not written.startswith("~/"):
        raise ValueRefused("names another user's home directory, which is not supported; write the whole path")
    return _named(written)


def socket(written: str) -> str:
    """The path of a Unix socket, with or without `unix:` before it."""
    return path(written.removeprefix("unix:"))


def boolean(written: str) -> bool:
    """`true` or `false`; also `yes`, `on`, `no` and `off`."""
    known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if written.lower() not in known:
        raise ValueRefused(f"must be true or false, not {quote(written)}")
    return known[written.lower()]


def count(written: str) -> int:
    """A whole number from 1 to 1000000."""
    if not re.fullmatch("[0-9]{1,7}", written) or not 1 <= int(written) <= 1_000_000:
        raise ValueRefused(f"must be a whole number from 1 to 1000000, not {quote(written)}")
    return int(written)


def size(written: str) -> int:
    """A number of bytes, as Kubernetes writes it: `256Mi`, `1Gi`. Returns bytes."""
    found = _SIZE.fullmatch(written)
    if found is None:
        raise ValueRefused(f"{quote(written)} is not a size; write 256Mi or 1Gi")
    return int(found[1]) * _UNITS[found[2] or ""]


def span(written: str) -> float:
    """A duration that may be zero: `0s`, `90s`, `15m`, `1h30m`, `7d`, `500ms`. At most `3650d`. Returns seconds."""
    found = _DURATION.fullmatch(written)
    if not written or found is None:
        if re.fullmatch(r"[0-9.]+", written):
            raise ValueRefused(f"{quote(written)} has no unit; write 15m, 1h, 90s or 1h30m")
        raise ValueRefused(f"{quote(written)} is not a duration; write it as 15m, 1h, 90s or 1h30m")
    seconds = sum(int(n) * unit for n, unit in zip(found.groups(), _SECONDS.values(), strict=True) if n)
    if seconds > _LONGEST:
        raise ValueRefused(f"{quote(written)} is too long; write at most 3650d")
    return seconds


def duration(written: str) -> float:
    """A duration above zero: `90s`, `15m`, `1h30m`, `24h`, `7d`, `500ms`. At most `3650d`. Returns seconds."""
    seconds = span(written)
    if seconds <= 0:
        raise ValueRefused("must be longer than zero")
    return seconds


def hours(written: str) -> float:
    """A number of hours above zero, without a unit, as OpenClaw writes it. Returns seconds."""
    if not re.fullmatch(r"[0-9]{1,5}(?:\.[0-9]{1,3})?", written) or not float(written) > 0:
        raise ValueRefused(f"must be a number of hours above zero, not {quote(written)}")
    return float(written) * 3600.0


def milliseconds(written: str) -> float:
    """A whole number of milliseconds, without a unit, as OpenClaw writes it. Returns seconds."""
    return count(written) / 1000.0


def shown(seconds: float) -> str:
    """A duration as the configuration writes it, such as `1h30m`."""
    parts = []
    left = round(seconds * 1000)
    for unit, size in _SECONDS.items():
        number, left = divmod(left, round(size * 1000))
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def instant(written: str) -> float:
    """An instant of RFC 3339 with its offset: `2027-01-01T00:00:00Z`. Returns seconds since 1970."""
    advice = "write an RFC 3339 instant with its offset, such as 2027-01-01T00:00:00Z"
    if not _INSTANT.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not an instant; {advice}")
    try:
        seconds = (datetime.fromisoformat(written.upper()) - datetime.fromtimestamp(0, UTC)).total_seconds()
    except (ValueError, OverflowError):
        raise ValueRefused(f"{quote(written)} is not a date and time that exists; {advice}") from None
    if seconds < 0:
        raise ValueRefused(f"{quote(written)} is before 1970; {advice}")
    return seconds


def address(written: str) -> Address:
    """A host and a port: `127.0.0.1:8686`, `[::1]:8686`. Port 0 is any free port."""
    advice = "write host:port, such as 127.0.0.1:8686"
    host, colon, port = written.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueRefused(f"{quote(written)} has no port; {advice}")
    if not host:
        raise ValueRefused(f"{quote(written)} has no host; {advice}, or 0.0.0.0:{port} for every interface")
    if int(port) > 65535:
        raise ValueRefused(f"port {port} is greater than 65535; {advice}")
    return Address(_host(host, written=written, advice=advice), int(port))


def _host(host: str, *, written: str, advice: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        usable = (ip_address(bare).version == 6) == (bare is not host)
    except ValueError:
        # Only digits and dots: a mistyped address, and not a name.
        usable = _HOST_NAME.fullmatch(host) is not None and not re.fullmatch("[0-9.]+", host)
    if not usable:
        raise ValueRefused(f"{quote(written)} has no valid host; {advice}, or [::1]:8686")
    return bare


def agent(written: str) -> str:
    """The name of an agent: up to 63 of `a-z`, `0-9`, `-` and `_`. `admin` and `gateway` are not allowed."""
    if written in _RESERVED_AGENTS:
        raise ValueRefused(f"{written!r} is the name of a socket directory of the broker; give the agent another name")
    if not _AGENT.fullmatch(written):
        raise ValueRefused("is not a valid agent name; use up to 63 of a-z, 0-9, - and _, and begin with a letter or a digit")
    return _named(written)


def service_account(written: str) -> str:
    """A Kubernetes service account: `namespace/name`."""
    if not _SERVICE_ACCOUNT.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not a service account; write namespace/name, such as agents/reviewer")
    return written


def provider(written: str) -> str:
    """The id or an alias of a provider: `anthropic`, `z.ai`."""
    if not _PROVIDER.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not a provider id; use a-z, 0-9, -, . and _, as in anthropic or z.ai")
    return written


def profile(written: str) -> tuple[str, str]:
    """The id of a profile, as provider and name: `anthropic:prod`. Returns both."""
    vendor, colon, name = written.partition(":")
    if not colon or not _PROVIDER.fullmatch(vendor) or not _PROFILE_NAME.fullmatch(name):
        raise ValueRefused(f"{quote(written)} is not a profile id; write provider:name, such as anthropic:prod")
    _named(written)
    return vendor, name


def variable(written: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not a name for an environment variable; use A-Z, 0-9 and _")
    return written


def header(written: str) -> str:
    """The name of an HTTP header or of a WebSocket protocol."""
    if not _HEADER.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not a header name; use letters, digits and -, such as X-Team")
    return written


def listed_name(written: str) -> str:
    """The name of a header or of a query parameter. `*` at the end matches all names that begin so."""
    if not _LISTED.fullmatch(written):
        raise ValueRefused(f"{quote(written)} is not a name; write X-Team, or X-Team-* for all names that begin so")
    return written


def url(written: str) -> str:
    """An http or https URL, without user, query and fragment."""
    if not _URL.fullmatch(written):
        raise ValueRefused("must be a URL such as https://api.example.com/v1, without user, query or fragment")
    return written


def identifier(written: str) -> str:
    """An identifier that a vendor shows: letters, digits, `-`, `_`, `.` and `:`. It is not a credential."""
    if is_credential(written):
        raise ValueRefused("is a credential, which does not belong here; write the identifier that the vendor shows")
    if not _IDENTIFIER.fullmatch(written):
        raise ValueRefused("must be an identifier as the vendor shows it: letters, digits, -, _, . and :, without spaces")
    return written


def kube_name(written: str) -> str:
    """The name of a Kubernetes object: a DNS subdomain (RFC 1123)."""
    if len(written) > _KUBE_NAME_MAX or not _KUBE_NAME.fullmatch(written):
        raise ValueRefused(
            f"{quote(written)} is not a Kubernetes name; use a-z, 0-9, - and ., with a letter or a digit at both ends"
        )
    return _named(written)


def _named(written: str) -> str:
    if masked(written) != written:
        raise ValueRefused("looks like a key, but must be a name; write another name, and revoke that key at its provider")
    return written


def model(written: str) -> str:
    """A provider and its model: `anthropic/claude-sonnet-4-5`."""
    vendor, slash, name = text(written).partition("/")
    if not slash or not name or not _PROVIDER.fullmatch(vendor):
        raise ValueRefused(f"{quote(written)} is not a model; write provider/model, such as anthropic/claude-sonnet-4-5")
    return written


def rate(written: str) -> float:
    """A number for each second, minute or hour: `20/s`, `600/m`, `1000/h`. Returns the number for each second."""
    found = _RATE.fullmatch(written)
    if found is None or int(found[1]) == 0:
        raise ValueRefused(f"{quote(written)} is not a rate; write it as 20/s, 600/m or 1000/h")
    return int(found[1]) / _SECONDS[found[2]]


def word(known: Iterable[str], written: str) -> str:
    """One of a closed list of words."""
    if written not in known:
        raise ValueRefused(f"{quote(written)} is not one of {', '.join(known)}")
    return written


def one_of(kind: type[E], written: str) -> E:
    """The member of an enumeration of words."""
    return kind(word([member.value for member in kind], written))
