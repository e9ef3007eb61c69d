"""Where a secret leaves its wrapping. Everywhere else it is a `SecretValue`, or on the agent's side a `Secret`, which cannot
show itself; so this list is all there is to read for whoever wants to know where one could escape."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SEARCHED = ("broker", "clients/python/equabot_cli", "clients/python/equabot_client", "deploy", "benchmarks")

REASONS = {
    "broker/equabot_broker/cli/auth_entering.py": "a setup token is told by its beginning and its length",
    "clients/python/equabot_cli/exec_variables.py": "a command's variables, under another SDK's names",
    "clients/python/equabot_cli/key.py": "prints the secret alone, for apiKeyHelper and scripts: its purpose",
    "clients/python/equabot_cli/lease.py": "--json prints the whole lease, its secret included, as the help says",
    "broker/equabot_broker/cli/storing.py": "what a person gave, to be cleaned before it is stored",
    "broker/equabot_broker/identity/account_tokens.py": "what a caller's token says of itself, and what its signature covers",
    "broker/equabot_broker/formats/auth_document.py": "an entry of auth-profiles.json as written, and a token's fingerprint",
    "broker/equabot_broker/oauth/authorization.py": "a login: its verifier's challenge, its state, what its token says",
    "broker/equabot_broker/domain/credentials.py": "the header and the variable that carry a secret to the provider",
    "broker/equabot_broker/formats/refresh_marks.py": "refreshed tokens, as fields of an entry that is about to be stored",
    "broker/equabot_broker/envoy/secret_discovery.py": "onto the wire, to the Envoy that puts it into requests",
    "broker/equabot_broker/identity/token_review.py": "a caller's token, to the API server that says whether it is good",
    "broker/equabot_broker/rpc/convert.py": "onto the wire, to the agent that leased it",
    "broker/equabot_broker/rpc/tls.py": "the broker's own TLS key, to the library, by a file in memory",
    "broker/equabot_broker/sources/env.py": "what the configuration's env section gives, to be cleaned like any variable",
    "broker/equabot_broker/sources/exec.py": "what a program reported, to be cleaned like any value",
    "broker/equabot_broker/storage/dotenv_file.py": "a line of the `.env` that a person asked to have written",
    "broker/equabot_broker/telemetry/redaction.py": "what is to be found in a text has to be known",
    "broker/equabot_broker/upstream/token_endpoint.py": "to the provider's token endpoint, in a request's body",
}
"""Every file that reveals, and why. A new one needs a reason that a reviewer believes."""

_WRAPPERS = {"broker/equabot_broker/domain/secret_value.py", "clients/python/equabot_client/_secret.py"}
_PRIVATE = ("__value", "__text", "__texts")


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in SEARCHED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(), str(path))


def _opens(node: ast.AST) -> bool:
    """`x.reveal`, called or handed on, `getattr(x, "reveal")`, and a way past it to the text itself."""
    match node:
        case ast.Attribute(attr=name):
            return name == "reveal" or name.endswith(_PRIVATE)
        case ast.Constant(value=str() as text):
            return text == "reveal" or (text.startswith("_Secret") and text.endswith(_PRIVATE))
    return False


def test_secrets_are_revealed_where_they_leave_and_nowhere_else() -> None:
    """The files that do are exactly those listed, each with its reason."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for file, tree in _sources():
        for node in ast.walk(tree):
            if file not in _WRAPPERS and _opens(node):
                found[file].append(getattr(node, "lineno", 0))
    assert {file: lines for file, lines in found.items() if file not in REASONS} == {}, "a secret leaves here: say why above"
    assert REASONS.keys() - found.keys() == set(), "nothing is revealed here any more: take the reason away"


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        ("secret.reveal()", True),
        ("[*map(SecretValue.reveal, secrets)]", True),
        ("getattr(secret, 'reveal')()", True),
        ("secret._SecretValue__value", True),
        ("secret.label()", False),
        ("'it reveals nothing'", False),
    ],
)
def test_the_search_finds_what_it_looks_for(source: str, *, opens: bool) -> None:
    """Also what is done in a roundabout way."""
    assert any(map(_opens, ast.walk(ast.parse(source)))) is opens
