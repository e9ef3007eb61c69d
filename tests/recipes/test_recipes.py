"""The page of recipes: each is typed as it stands there, with the real client, through a broker and an Envoy, to a stand-in.

A block with a file's name behind its language is that file, in the reader's home or working directory; ```sh is what is typed
after it, ```yaml a part of the broker's configuration. The port and the vendor's address are those of the test.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from tests.fakes.upstream import Upstream
from tests.gateway.running import OPENAI_KEY, Gateway
from tests.journeys.running import KEY
from tests.tiers import clients, require

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "recipes.md").read_text()
GOOGLE_KEY, ROUTER_KEY, ZAI_KEY = "AIza" + "g0og1e00" * 5, "sk-or-v1-" + "r0uter00" * 8, "2a1" * 10 + ".za1" + "i" * 12
LOGIN: Final = "chatgpt-access-" + "c0dex000" * 6
ACCOUNT: Final = "11111111-2222-3333-4444-555555555555"
SECRETS: Final = {KEY, OPENAI_KEY, GOOGLE_KEY, ROUTER_KEY, ZAI_KEY, LOGIN}
DOTENV: Final = "\n".join(
    (
        f"ANTHROPIC_API_KEY={KEY}", f"OPENAI_API_KEY={OPENAI_KEY}", f"GEMINI_API_KEY={GOOGLE_KEY}",
        f"OPENROUTER_API_KEY={ROUTER_KEY}", f"ZAI_API_KEY={ZAI_KEY}", "",
    )
)  # fmt: skip
BASE_PATHS: Final = {
    "anthropic": "", "openai": "/v1", "google": "", "openrouter": "/api/v1", "openai-codex": "/backend-api",
    "zai": "/api/anthropic",
}  # fmt: skip
STORE: Final = f"""{{"version": 1, "profiles": {{"openai-codex:me": {{"type": "oauth", "provider": "openai-codex",
 "access": "{LOGIN}", "refresh": "{"r" * 40}", "expires": 4102444800000, "accountId": "{ACCOUNT}"}}}}}}"""
QUIET: Final = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    "AIDER_ANALYTICS_DISABLE": "1", "AIDER_CHECK_UPDATE": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1", "OTEL_SDK_DISABLED": "true", "TERM": "dumb",
}  # fmt: skip
"""A client under test looks for no news and sends none home: there is no network where it runs."""
EXECUTED: Final = PAGE.partition("## Not run by a test")[0]


class Recipe(NamedTuple):
    """What is typed, after which files were written."""

    section: str
    command: str
    files: dict[str, str]
    raw: bool

    @property
    def name(self) -> str:
        kind = "raw" if self.raw else "helper" if "exec" not in self.command else "exec"
        return f"{self.section}, {kind}: {self.command.strip()}"


def _recipes() -> Iterator[Recipe]:
    for section in EXECUTED.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        files: dict[str, str] = {}
        for kind, block in re.findall(r"```([^\n]+)\n(.*?)```", text, re.DOTALL):
            language, _, rest = kind.partition(" ")
            if language == "sh":
                yield Recipe(title, block, files, rest == "raw")
                files = {}
            elif rest:
                files[rest] = block


RECIPES: Final = list(_recipes())


@pytest.fixture(scope="module")
def vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        yield serving


@pytest.fixture(scope="module")
def gateway(vendor: Upstream) -> Iterator[Gateway]:
    """A broker that has a credential of every provider on the page, and what the page adds to its configuration."""
    require("clients")
    running = Gateway(vendor, dotenv=DOTENV)
    written = re.findall(r"```yaml\n(.*?)```", EXECUTED, re.DOTALL)
    providers = {name: given for text in written for name, given in yaml.safe_load(text)["providers"].items()}
    for name, path in BASE_PATHS.items():
        providers.setdefault(name, {})["base_url"] = f"{vendor.url}{path}"
    tools = running.home / "tools"
    tools.mkdir()
    (tools / "equabot").write_text(f'#!/bin/sh\nexec {sys.executable} -m equabot_broker "$@"\n')
    (tools / "equabot").chmod(0o755)
    store = running.home / "agents" / "main" / "agent"
    store.mkdir(parents=True, mode=0o700)
    (store / "auth-profiles.json").write_text(STORE)
    (store / "auth-profiles.json").chmod(0o600)
    config = yaml.safe_load((running.home / "equabot.yaml").read_text())
    running.configure(config, {"providers": providers})
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The reader's, with a working directory in which Node finds the packages."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "node_modules").symlink_to(clients() / "node_modules")
    return tmp_path


def environ(gateway: Gateway, home: Path) -> dict[str, str]:
    path = f"{gateway.home / 'tools'}:{clients() / 'bin'}:{clients() / 'clients' / 'bin'}:{gateway.environ['PATH']}"
    return gateway.environ | QUIET | {"HOME": str(home), "PATH": path}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe(gateway: Gateway, vendor: Upstream, home: Path, recipe: Recipe) -> None:
    """C3, C6, C7, C9, C12, C22: the client says what the vendor said, the vendor got the provider's credential and no other,
    and the client has kept none of it."""
    vendor.forget()
    vendor.accepted = SECRETS
    for name, text in recipe.files.items():
        path = home / name.removeprefix("~/") if name.startswith("~/") else home / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("127.0.0.1:8787", f"127.0.0.1:{gateway.port}"))
    done = subprocess.run(
        ["sh", "-eu", "-c", recipe.command], cwd=home / "work", env=environ(gateway, home) | _direct(recipe, vendor),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    assert "hello" in done.stdout.lower()
    assert {request.secret() for request in vendor.received} <= SECRETS
    asked = [request for request in vendor.received if request.method == "POST" or "upgrade" in request.headers]
    assert asked
    for request in asked:
        assert request.headers.get("chatgpt-account-id") == (ACCOUNT if request.secret() == LOGIN else None)
    if not recipe.raw:
        assert _written(home, {secret.encode() for secret in SECRETS}) == []


def _direct(recipe: Recipe, vendor: Upstream) -> dict[str, str]:
    """Without a gateway a client goes to its vendor, which is not the stand-in unless it is said so."""
    return {"ANTHROPIC_BASE_URL": vendor.url} if recipe.raw else {}


def _written(home: Path, secrets: set[bytes]) -> list[Path]:
    """Files of the client that hold a secret."""
    files = (path for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if any(secret in path.read_bytes() for secret in secrets)]


def test_the_page_is_whole() -> None:
    """Every client that the page promises has a recipe, every link leads somewhere, every block is one that is used."""
    wanted = {
        "Claude Code", "An Anthropic-compatible provider", "Codex", "Gemini CLI", "Qwen Code", "opencode", "aider", "LiteLLM",
        "LangChain", "Vercel AI SDK", "pydantic-ai", "openai-agents", "claude-agent-sdk", "google-genai",
    }  # fmt: skip
    assert {recipe.section for recipe in RECIPES} == wanted
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    kinds = {kind.partition(" ")[0] for kind in re.findall(r"```(\w[^\n]*)\n", PAGE)}
    assert kinds == {"sh", "json", "toml", "js", "python", "yaml"}
