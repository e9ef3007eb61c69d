"""Where the broker is."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_SCHEME: Final = "unix:"
_LONGEST: Final = 107  # sun_path holds 108 bytes, the last of which is zero
_LOOPBACK: Final = ("127.0.0.1:", "[::1]:", "localhost:")
_TCP: Final = re.compile(r"(?:dns:///)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):[0-9]{1,5}")


def resolve(address: str | None, *, agent: str, environ: Mapping[str, str], identified: bool = False) -> str:
    """A gRPC target: the address given, else `EQUABOT_BROKER_ADDRESS`, else the agent's socket in the run directory.

    A path may stand for `unix:` and itself. `identified`: there is what shows who is calling, so `host:port` will do. Raises
    ValueError for what cannot be an address.
    """
    given = address or environ.get("EQUABOT_BROKER_ADDRESS")
    return _target(given, identified=identified) if given else _target(str(_default_socket(agent, environ)), identified=False)


def is_socket(target: str) -> bool:
    """Whether the target is a Unix socket, which needs neither encryption nor anybody's name."""
    return target.startswith(_SCHEME)


def socket_path(target: str) -> Path:
    """The path of a target that is a Unix socket."""
    return Path(target.removeprefix(_SCHEME))


def expanded(text: str) -> Path:
    """The path with `~` as the home directory. A user without one, as in a container, has `/`, as the broker reads it too."""
    written = os.path.expanduser(text)  # noqa: PTH111  (which raises nothing for such a user)
    return Path(written[1:] if written.startswith("~/") else written)


def _target(text: str, *, identified: bool) -> str:
    text = text.strip()
    if text.startswith(_LOOPBACK) or (identified and _TCP.fullmatch(text)):
        return text
    if _TCP.fullmatch(text):
        raise ValueError(
            f"broker address {text!r}: a broker that is reached over TCP wants to know who calls. Give token_file"
            " (EQUABOT_BROKER_TOKEN_FILE), or client_certificate and client_key; without encryption only a loopback address is"
            " spoken to"
        )
    if not text.startswith(_SCHEME) and "/" not in text:
        raise ValueError(
            f"broker address {text!r}: expected unix:/path/broker.sock, a path, a loopback host:port or, with a token or a"
            " certificate, any host:port"
        )
    path = expanded(re.sub("^/+", "/", text.removeprefix(_SCHEME))).absolute()
    if len(os.fsencode(path)) > _LONGEST:
        raise ValueError(f"broker address {text!r}: a socket's path has at most {_LONGEST} bytes")
    return f"{_SCHEME}{path}"


def _default_socket(agent: str, environ: Mapping[str, str]) -> Path:
    """The first socket there is; while there is none, the one that a broker started now would make."""
    if "/" in agent or agent in {"", ".", ".."}:
        raise ValueError(f"agent {agent!r}: not a name")
    sockets = [(run_dir, run_dir / agent / "broker.sock") for run_dir in _run_dirs(environ)]
    for _, socket in sockets:
        if os.path.exists(socket):  # noqa: PTH110  (one in a closed directory is none, and no error)
            return socket
    for run_dir, socket in sockets:
        if os.path.exists(run_dir) or os.access(run_dir.parent, os.W_OK):  # noqa: PTH110
            return socket
    return sockets[-1][1]


def _run_dirs(environ: Mapping[str, str]) -> Iterator[Path]:
    if chosen := environ.get("EQUABOT_RUN_DIR"):
        yield Path(chosen)
        return
    yield Path("/run/equabot")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "equabot"
    yield expanded(environ.get("EQUABOT_HOME") or "~/.equabot") / "run"
