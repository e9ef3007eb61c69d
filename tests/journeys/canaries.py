"""Secrets that occur nowhere else, every way for them into a broker, and a search for every piece of them."""

import base64
import json
import random
import resource
import string
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.journeys.running import RunningBroker
from tests.journeys.showing import TALKATIVE, said

KEY: Final = "sk-ant-api03-{}"
TOKEN: Final = "sk-ant-oat01-{}"
PIECE: Final = 8
"""So many characters of a secret in a row give it away."""

_HEX_PIECE: Final = 2 * PIECE
_LETTERS: Final = string.ascii_letters + string.digits


class Canaries:
    """Opaque values by the way on which each is sent in. The same ones every time: a leak can be looked into."""

    def __init__(self) -> None:
        self._random = random.Random("canaries")
        self._pieces: dict[str, str] = {}

    def new(self, way: str, *, like: str = "{}", length: int = 48) -> str:
        """A new one, dressed as a credential would be. Only what is between the braces counts as secret."""
        body = "".join(self._random.choices(_LETTERS, k=length))
        self.add(way, body)
        return like.format(body)

    def add(self, way: str, body: str) -> None:
        """One that was made elsewhere."""
        for spelling in (body, body[::-1], *(_base64(body[cut:]) for cut in range(3))):
            self._pieces |= {spelling[at : at + PIECE]: way for at in range(len(spelling) - PIECE + 1)}
        spelt = body.encode().hex()
        self._pieces |= {spelt[at : at + _HEX_PIECE]: way for at in range(len(spelt) - _HEX_PIECE + 1)}

    def seen_in(self, shown: str | bytes) -> set[str]:
        """The ways of those of which a piece is shown: as it is, backwards, in base64 or in hexadecimal digits."""
        text = shown if isinstance(shown, str) else shown.decode("latin-1")
        pieces = {text[at : at + size] for size in (PIECE, _HEX_PIECE) for at in range(len(text) - size + 1)}
        return {self._pieces[piece] for piece in pieces & self._pieces.keys()}

    def leaks(self, shown: Mapping[str, str | bytes]) -> dict[str, set[str]]:
        """What of it shows which canaries. Empty is good."""
        return {where: seen for where, what in shown.items() if (seen := self.seen_in(what))}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")[:-2]


# --- ways in ----------------------------------------------------------------------------------------------------------

GOOD_IN_THE_ENVIRONMENT = {"ANTHROPIC_API_KEY": ("anthropic:env", KEY), "HF_TOKEN": ("huggingface:env", "hf_{}")}
GOOD_IN_DOTENV = {
    "export GROQ_API_KEY": ("groq:dotenv", "gsk_{}"),
    "CLAUDE_CODE_OAUTH_TOKEN": ("anthropic:dotenv", TOKEN),
    "PERPLEXITY_API_KEY": ("perplexity:dotenv", "Bearer {}"),
    "BOUND": ("openai:bound", "{}"),
}
GOOD_IN_FILES = {
    "MISTRAL_API_KEY": ("mistral:mounted", "\ufeff{}\r\n"),
    "team/OPENROUTER_API_KEY": ("openrouter:team", "sk-or-v1-{}"),
    "old/KEPT": ("anthropic:old", TOKEN),
    "soon/KEPT": ("anthropic:soon", TOKEN),
}
GOOD_IN_LOGINS = {
    "key": ("fireworks:stored", "{}"),
    "token": ("anthropic:stored", TOKEN),
    "access": ("anthropic:login", TOKEN),
    "accessToken": ("anthropic:claude-cli", TOKEN),
}
MALFORMED = {
    "a control character": ("XAI_API_KEY", "xai-a\x01{}"),
    "two lines": ("GEMINI_API_KEY", "first{}\nsecond{}"),
    "a space": ("TOGETHER_API_KEY", "{} {}"),
    "no ASCII": ("VENICE_API_KEY", "é{}"),
    "no text": ("DEEPSEEK_API_KEY", "\udcff{}"),
    "a placeholder": ("FIREWORKS_API_KEY", "${{{}}}"),
    "half a quote": ("VOYAGE_API_KEY", '"{}'),
    "too long": ("NVIDIA_API_KEY", "{}" + "x" * 70_000 + "{}"),
    "another provider's key": ("MOONSHOT_API_KEY", KEY),
    "a token for a key": ("ANTHROPIC_API_KEY_TEAM", TOKEN),
    "a list with a placeholder": ("OPENAI_API_KEYS", "{}, <{}>; {}"),
    "nothing to do with us": ("DATABASE_PASSWORD", "{}"),
}
CONFIG: Final = """\
agents:
  main: {{}}
  single: {{providers: [openai], max_leases: 1}}
  slow: {{providers: [openai], rate: 1/h, burst: 1}}
  blind: {{providers: ['*'], deliveries: [brokered]}}
sources:
  - mounted: {{path: mounted}}
  - mounted: {{path: unread}}
  - profile_store
  - claude_cli: {{path: .claude/.credentials.json}}
  - dotenv: {{path: .env}}
  - env
profiles:
  anthropic:old: {{from: {{mounted: {{dir: old, key: KEPT}}}}, mode: token, expires_at: 2020-01-01T00:00:00Z}}
  anthropic:soon: {{from: {{mounted: {{dir: soon, key: KEPT}}}}, mode: token, expires_at: {soon}}}
  openai:bound: {{from: {{dotenv: BOUND}}}}
required: [cerebras]
env: {{vars: {{ACME_TOKEN: {variable}}}}}
"""


class World:
    """A broker that was given all of these. `live` are the secrets that it may hand out, by profile.

    Its log is as talkative as can be. A source that cannot be read keeps it from being ready.
    """

    def __init__(self) -> None:
        self.canaries = Canaries()
        self.live: dict[str, str] = {}
        environ, lines, files, logins = map(
            self._good, (GOOD_IN_THE_ENVIRONMENT, GOOD_IN_DOTENV, GOOD_IN_FILES, GOOD_IN_LOGINS)
        )
        soon = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
        self.broker = RunningBroker(
            credentials=environ | {name: self._bad(f"{way} in a variable", like) for way, (name, like) in MALFORMED.items()},
            dotenv="".join(f'{name}="{text}"\n' for name, text in lines.items()),
            config=CONFIG.format(soon=soon, variable=self.canaries.new("the configuration")),
        )
        mounted = self.broker.home / "mounted"
        for name, text in files.items():
            _write(mounted / name, text)
        for way, (name, like) in MALFORMED.items():
            _write(mounted / "bad" / name, self._bad(f"{way} in a file", like))
        self._write_logins(logins)
        _write(mounted / "broken" / ".env", f"GROQ_API_KEY {self._bad('a broken .env', KEY)}\n")
        self._misname(mounted)
        _write(self.broker.home / "unread", self.canaries.new("a file in place of a directory"))
        self.broker.environ |= TALKATIVE
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # where nobody forbids it, a crash would write a core file
        try:
            self.broker.start("-vv", service="liveness")
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))

    def _misname(self, mounted: Path) -> None:
        """Keys where names belong: of a directory, a file, a variable, an entry, a profile of a store."""
        value = "a-value-of-no-interest-01"
        _write(mounted / self._bad("a directory's name", KEY) / "OPENAI_API_KEY", value)
        _write(mounted / "misnamed" / f"OPENAI_API_KEY_{self._bad('the name of a file', KEY)}", value)
        _write(mounted / "misnamed" / ".env", f"GROQ_API_KEY_{self._bad('a name in a line', 'hf_{}')}={value}\n")
        store = {"profiles": {f"xai:{self._bad('a mounted profile', 'xai-{}')}": {"type": "api_key", "key": value}}}
        _write(mounted / "misnamed-store" / "auth-profiles.json", json.dumps(store))
        self.broker.credentials[f"OPENAI_API_KEY_{self._bad('the name of a variable', 'sk_live_{}')}"] = value

    def _write_logins(self, good: Mapping[str, str]) -> None:
        """Claude's, and the agents' stores: one with entries that are none, and one that is no JSON."""
        never = 4_000_000_000_000
        claude = {"accessToken": good["accessToken"], "refreshToken": self._bad("a refresh token", "{}"), "expiresAt": never}
        _write(self.broker.home / ".claude" / ".credentials.json", json.dumps({"claudeAiOauth": claude}))
        profiles: dict[str, Mapping[str, object]] = {
            "fireworks:stored": {"type": "api_key", "provider": "fireworks", "key": good["key"]},
            "anthropic:stored": {"type": "token", "provider": "anthropic", "token": good["token"], "expires": never},
            "anthropic:login": {
                "type": "oauth",
                "provider": "anthropic",
                "access": good["access"],
                "refresh": self._bad("a stored refresh token", "{}"),
                "expires": never,
            },
            "anthropic:misplaced": {"type": "api_key", "provider": "anthropic", "key": self._bad("a stored token", TOKEN)},
            "xai:broken": {"type": "api_key", "provider": "xai", "key": self._bad("two stored lines", "{}\n{}")},
            "xai:unknown": {"type": "riddle", "provider": "xai", "key": self._bad("an unknown kind", "xai-{}")},
            "anthropic:endless": {
                "type": "token",
                "provider": "anthropic",
                "token": ["x"],
                "expires": self._bad("an end", "{}"),
            },
        }
        profiles[f"deepseek:{self._bad('a stored name', KEY)}"] = {"type": "api_key", "key": "a-value-of-no-interest-02"}
        profiles["deepseek:mailed"] = {
            "type": "api_key", "key": "a-value-of-no-interest-03", "email": self._bad("an address", KEY)
        }  # fmt: skip
        order = {"deepseek": [f"deepseek:{self._bad('an ordered name', KEY)}"], self._bad("an ordered provider", KEY): ["x:y"]}
        store = Path("agent", "auth-profiles.json")
        whole = {"version": 1, "profiles": profiles, "order": order}
        _write(self.broker.home / "agents" / "main" / store, json.dumps(whole))
        torn = {"version": 1, "profiles": {"openai:torn": {"type": "api_key", "key": self._bad("a torn store", "sk-proj-{}")}}}
        _write(self.broker.home / "agents" / "single" / store, json.dumps(torn)[:-2])

    def leaks(self, **shown: str | bytes) -> Mapping[str, set[str]]:
        """As `Canaries.leaks`."""
        return self.canaries.leaks(shown)

    def run(self, *commands: list[str], **environ: str) -> str:
        """What commands of `equabot` print, wherever they print it, and `exit <code>` twice after each."""
        return said(self.broker, *commands, **environ)

    def _good(self, wanted: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        made = {name: self.canaries.new(profile, like=like) for name, (profile, like) in wanted.items()}
        self.live |= {wanted[name][0]: text.strip("\ufeff\r\n").removeprefix("Bearer ") for name, text in made.items()}
        return made

    def _bad(self, way: str, like: str) -> str:
        return like.format(*(self.canaries.new(f"{way} ({number})") for number in range(3)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
