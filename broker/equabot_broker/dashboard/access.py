"""Who may read the page: the holder of the session that the one-time token of the link was exchanged for (ADR 48).

Browsers send a cookie to every port of a host, and so to a server that another user runs on the same address. The cookie alone
is therefore not enough: a request also carries a key in a header. The page has the key from the exchange, and browsers keep it
for this origin, port included.
"""

import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from equabot_broker.parsing.request_heads import HeadRefused, RequestHead

TOKEN_HEADER: Final = "equabot-token"
KEY_HEADER: Final = "equabot-page-key"
_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PageSession:
    """What the page is given for the token: a header line that sets the cookie, and the key."""

    set_cookie: str
    key: str


class PageAccess:
    """One token and one session. Holds both only in memory; `repr` shows neither."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(_BYTES)
        """It opens the page once. Afterwards it is worthless."""
        self.spent = False
        self._cookie = secrets.token_urlsafe(_BYTES)
        self._key = secrets.token_urlsafe(_BYTES)

    def exchange(self, head: RequestHead, *, port: int) -> PageSession:
        """The session, for a request with the token. Raises HeadRefused. A wrong token does not spend the right one."""
        if not _same(head.headers.get(TOKEN_HEADER, ""), self.token) or self.spent:
            raise HeadRefused("403 Forbidden", "this link is not valid, or was used: run `equabot dashboard` again")
        self.spent = True
        return PageSession(f"Set-Cookie: {_name(port)}={self._cookie}; Path=/; HttpOnly; SameSite=Strict", self._key)

    def check(self, head: RequestHead, *, port: int) -> None:
        """Raises HeadRefused for a request without the cookie and the key."""
        cookie = _same(_cookies(head).get(_name(port), ""), self._cookie)
        key = _same(head.headers.get(KEY_HEADER, ""), self._key)
        if not (cookie and key and self.spent):
            raise HeadRefused("401 Unauthorized", "open the link that `equabot dashboard` printed")


def check_origin(head: RequestHead, *, port: int, document: bool) -> None:
    """Raises HeadRefused for another host (DNS rebinding) and for what another site's page makes the browser send. The document
    may be opened from anywhere, but not in a frame: it has no data."""
    host = head.headers.get("host", "").lower()
    if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        raise HeadRefused("421 Misdirected Request", f"this server is 127.0.0.1:{port}")
    if head.headers.get("origin", f"http://{host}") != f"http://{host}":
        raise HeadRefused("403 Forbidden", "another site may not read this page")
    site = head.headers.get("sec-fetch-site", "same-origin")
    opened = (head.headers.get("sec-fetch-mode"), head.headers.get("sec-fetch-dest")) == ("navigate", "document")
    if site != "same-origin" and not (document and opened):
        raise HeadRefused("403 Forbidden", "another site may not read this page")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _name(port: int) -> str:
    """Cookies have no port, so the name has it: two dashboards do not overwrite each other's."""
    return f"equabot-dashboard-{port}"


def _cookies(head: RequestHead) -> dict[str, str]:
    pairs = (pair.strip().partition("=") for pair in head.headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}
