"""Logging in: a real browser's part is played over real HTTP, against a vendor on loopback."""

import base64
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fakes.authorization_server import ACCESS, REFRESH, AuthorizationServer
from tests.fakes.host import Host
from tests.fakes.terminal import Person

PAGE = "https://vendor.example/shows-the-code"


@pytest.fixture
def vendor() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def ready(host: Host, vendor: AuthorizationServer) -> Host:
    """A host whose configuration knows the vendor as anthropic, openai-codex and qwen-portal."""
    common = f"token_url: {vendor.url}/token, client_id: {vendor.client_id}"
    host.write_config(
        "providers:\n"
        f"  anthropic: {{authorize_url: {vendor.url}/authorize, redirect_url: '{PAGE}', {common}}}\n"
        f"  openai-codex: {{authorize_url: {vendor.url}/authorize, redirect_url: 'http://localhost:0/auth/callback',"
        f" {common}}}\n"
        f"  qwen-portal: {{device_url: {vendor.url}/device, {common}}}\n"
    )
    return host


def shown_url(person: Person) -> str:
    """The address that the command prints."""
    person.reads("Open this address in a browser").reads("http").reads("\n")
    return next(line.strip() for line in person.seen.splitlines() if line.strip().startswith("http"))


def browse(url: str) -> tuple[int, str]:
    """What a browser gets, redirects followed."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def jwt(claims: dict[str, object]) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{middle}.c2ln"


def login(host: Host, provider: str, *more: str, **environ: str) -> Person:
    return host.at_terminal("models", "auth", "login", "--provider", provider, *more, **environ)


def test_a_loopback_redirect_ends_it(ready: Host, vendor: AuthorizationServer) -> None:
    """The browser comes back by itself; the login is stored with all that is needed to refresh it. T5: rounded."""
    access = jwt({"https://api.openai.com/auth": {"chatgpt_account_id": "acct-1"}, "exp": 1})
    vendor.extra = {"access_token": access, "id_token": jwt({"email": "me@example.com"})}
    with login(ready, "openai-codex") as person:
        status, page = browse(shown_url(person))
        assert (status, "Logged in" in page) == (200, True)
        person.reads("stored openai-codex:me@example.com (oauth, expires in 8h)")
        assert person.leaves() == 0
        assert "code-" not in person.seen
    entry = ready.store()["profiles"]["openai-codex:me@example.com"]
    assert entry.pop("expires") / 1000 - time.time() == pytest.approx(28800, abs=30)
    assert entry == {
        "type": "oauth",
        "provider": "openai-codex",
        "access": access,
        "refresh": REFRESH,
        "clientId": vendor.client_id,
        "accountId": "acct-1",
        "email": "me@example.com",
    }
    assert '"openai-codex:me@example.com": {provider: openai-codex, mode: oauth}' in ready.config
    assert ready.run("config", "check").code == 0


def test_what_is_asked_is_pkce(ready: Host, vendor: AuthorizationServer) -> None:
    """The challenge goes to the browser, the verifier only to the token endpoint; the vendor's own fields go along."""
    with login(ready, "openai-codex") as person:
        url = shown_url(person)
        asked = parse_qs(urlsplit(url).query)
        assert asked["scope"] == ["openid profile email offline_access"]
        assert asked["codex_cli_simplified_flow"] == ["true"]
        assert "code_verifier" not in asked
        browse(url)
        assert person.leaves() == 0
    request = vendor.requests[0]
    assert request["grant_type"] == "authorization_code"
    assert request["redirect_uri"] == asked["redirect_uri"][0]
    assert len(request["code_verifier"]) >= 43


def test_a_browser_is_opened_where_there_is_one(ready: Host) -> None:
    """`BROWSER` names it; it need not come back before the login ends. No terminal is needed then."""
    browser = ready.home / "browser"
    browser.write_text(f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1]).read()\n")
    browser.chmod(0o755)
    with login(ready, "openai-codex", BROWSER=str(browser)) as person:
        person.reads("stored openai-codex:default (oauth")
        assert person.leaves() == 0


@pytest.mark.parametrize("form", ["code#state", "address", "code alone"])
def test_a_code_is_pasted_where_the_vendor_shows_it(ready: Host, vendor: AuthorizationServer, form: str) -> None:
    """As the vendor shows it, or the whole address that the browser ended at; unseen."""
    with login(ready, "anthropic", "--profile-id", "anthropic:me") as person:
        address = vendor.authorize(urlsplit(shown_url(person)).query)
        query = parse_qs(urlsplit(address).query)
        code, state = query["code"][0], query["state"][0]
        typed = {"code#state": f"{code}#{state}", "address": address, "code alone": code}[form]
        person.reads("(not shown): ").types(typed).reads("stored anthropic:me (oauth")
        assert person.leaves() == 0
        assert code not in person.seen
    assert ready.store()["profiles"]["anthropic:me"]["access"] == ACCESS
    assert ("state" in vendor.requests[0]) == (form == "code#state")


def test_what_is_pasted_wrong_is_asked_for_again(ready: Host, vendor: AuthorizationServer) -> None:
    """An address of another login, an incomplete one, an unrelated text: each has its own message, which does not repeat
    it."""
    with login(ready, "anthropic") as person:
        address = vendor.authorize(urlsplit(shown_url(person)).query)
        code = parse_qs(urlsplit(address).query)["code"][0]
        person.reads("(not shown): ").types(f"{code}#another").reads("the address belongs to another login")
        person.reads("(not shown): ").types("a b").reads("neither a code nor the address")
        person.reads("(not shown): ").types(address.partition("?")[0]).reads("the address belongs to another login")
        person.reads("(not shown): ").types(f"{code}x\x7f").reads("stored anthropic:default")
        assert code not in person.seen


def test_a_stranger_at_the_loopback_address_changes_nothing(ready: Host) -> None:
    """Another path, a wrong state, a connection that says nothing: the login goes on."""
    with login(ready, "openai-codex") as person:
        url = shown_url(person)
        back = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        silent = socket.create_connection(("127.0.0.1", urlsplit(back).port or 0))
        assert browse(back.replace("/auth/callback", "/favicon.ico"))[0] == 404
        status, page = browse(f"{back}?code=evil&state=wrong")
        assert (status, "evil" in page) == (400, False)
        assert browse(f"{back}?error=access_denied&state=wrong")[0] == 400
        assert browse(url)[0] == 200
        person.reads("stored openai-codex:default")
        assert person.leaves() == 0
        silent.close()


def test_a_busy_loopback_address_is_pasted_instead(ready: Host, vendor: AuthorizationServer) -> None:
    """Another program listens where the vendor sends the browser: the user copies the address."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        redirect = f"http://localhost:{busy.getsockname()[1]}/auth/callback"
        ready.write_config(ready.config.replace("http://localhost:0/auth/callback", redirect))
        with login(ready, "openai-codex") as person:
            address = vendor.authorize(urlsplit(shown_url(person)).query)
            assert address.startswith(redirect)
            person.reads("copy that address").reads("(not shown): ").types(address).reads("stored openai-codex:default")
            assert person.leaves() == 0


def test_a_device_login_is_waited_for(ready: Host, vendor: AuthorizationServer) -> None:
    """The address and the code are printed. The command asks again while the login is pending or the endpoint fails. It needs
    no terminal."""
    vendor.pending, vendor.failing = 2, 1
    done = ready.run("models", "auth", "login", "--provider", "qwen")
    assert (done.code, done.err) == (0, "")
    assert "confirm the code ABCD-1234" in done.out
    assert f"{vendor.url}/activate?user_code=ABCD-1234" in done.out
    assert ready.store()["profiles"]["qwen-portal:default"]["refresh"] == REFRESH
    assert len(vendor.requests) == 4
    assert ACCESS not in done.out


def test_a_login_without_a_refresh_token_is_a_token(ready: Host, vendor: AuthorizationServer) -> None:
    """It lasts as long as it lasts."""
    vendor.refresh = False
    assert ready.run("models", "auth", "login", "--provider", "qwen-portal").code == 0
    entry = ready.store()["profiles"]["qwen-portal:default"]
    assert (entry["type"], entry["token"]) == ("token", ACCESS)
    assert entry["expires"] / 1000 - time.time() == pytest.approx(28800, abs=30)


def test_a_new_login_replaces_the_old_one_whole(ready: Host) -> None:
    """Its account, its intents and its refusals: what the old tokens were goes with them."""
    old = {"type": "oauth", "provider": "qwen-portal", "access": "a", "refresh": "b", "expires": 1, "accountId": "x",
           "pendingRefresh": {"digest": "d", "at": 1}, "reauthRequired": {"code": "invalid_grant", "at": 1}}  # fmt: skip
    ready.write_store({"version": 1, "profiles": {"qwen-portal:default": old}})
    assert ready.run("models", "auth", "login", "--provider", "qwen-portal").code == 0
    entry = ready.store()["profiles"]["qwen-portal:default"]
    assert set(entry) == {"type", "provider", "access", "refresh", "expires", "clientId"}


@pytest.mark.parametrize("provider", ["openai-codex", "qwen-portal"])
def test_a_refused_login_stores_nothing(ready: Host, vendor: AuthorizationServer, provider: str) -> None:
    """With the vendor's reason, where it is a code."""
    vendor.denied = "access_denied"
    with login(ready, provider) as person:
        if provider == "openai-codex":
            assert browse(shown_url(person))[0] == 400
        person.reads("access_denied")
        assert person.leaves() == 1
    assert not ready.store_path().exists()


def test_a_code_that_is_not_redeemed_stores_nothing(ready: Host, vendor: AuthorizationServer) -> None:
    """What the endpoint says of it is not repeated: it quotes the request."""
    with login(ready, "anthropic") as person:
        shown_url(person)
        person.reads("(not shown): ").types("a-code-of-nobody")
        person.reads("the token endpoint answered 400 invalid_grant; nothing was stored")
        assert person.leaves() == 1
        assert "a-code-of-nobody" not in person.seen
        assert "no good" not in person.seen
    assert not ready.store_path().exists()


def test_an_endpoint_that_is_away_stores_nothing(ready: Host, vendor: AuthorizationServer) -> None:
    """It says whom it could not reach."""
    ready.write_config(ready.config.replace(f"{vendor.url}/device", "http://127.0.0.1:1/device"))
    done = ready.run("models", "auth", "login", "--provider", "qwen-portal")
    assert done.code == 1
    assert "cannot connect to 127.0.0.1; nothing was stored" in done.err


def test_giving_up_leaves_the_terminal_as_it_was(ready: Host) -> None:
    """Ctrl-D says that nothing was stored; Ctrl-C is 130."""
    for key, code in (("\x04", 1), ("\x03", 130)):
        with login(ready, "anthropic") as person:
            person.reads("(not shown): ").types(key, enter=False)
            assert person.leaves() == code


@pytest.mark.parametrize(
    ("provider", "code", "told"),
    [
        ("anthropic", 2, "needs an interactive terminal (TTY)"),
        ("openai", 64, "openai has no login (these have one: anthropic, openai-codex, qwen-portal)"),
        ("chutes", 64, "set providers.chutes.client_id"),
        ("nobody", 64, "provider 'nobody' is not known"),
    ],
)
def test_an_impossible_login_is_refused_at_once(ready: Host, provider: str, code: int, told: str) -> None:
    """Before the first request; the exit code is 2 if only a terminal is missing."""
    done = ready.run("models", "auth", "login", "--provider", provider)
    assert (done.code, done.out) == (code, "")
    assert told in done.err
