"""What a document comes to: defaults, full paths, and the rules that hold between values."""

from pathlib import Path
from typing import Any

import pytest

from equabot_broker.config.assemble import Surroundings, assemble
from equabot_broker.config.keys import read
from equabot_broker.config.model import Config, ConfiguredProfile, Listen, SourceSpec
from equabot_broker.discovery.bundle_profiles import Override, ValueLocation
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.profiles import FOREIGN_LOGINS
from equabot_broker.domain.provider import Mode
from equabot_broker.providers import PROVIDERS
from equabot_broker.schema.reading import FaultReport
from equabot_broker.schema.values import Address


def around(**told: Any) -> Surroundings:
    usual: dict[str, Any] = {
        "file": Path("/etc/equabot/equabot.yaml"),
        "user_home": Path("/home/me"),
        "home": Path("/home/me/.equabot"),
        "run_dir": None,
        "default_run_dir": Path("/run/equabot"),
    }
    return Surroundings(**(usual | told))


def assembled(text: str, **told: Any) -> tuple[Config, list[str]]:
    report = FaultReport("f.yaml")
    config = assemble(read(text, report), around(**told), report)
    return config, [str(fault).removeprefix("f.yaml:") for fault in report.faults()]


def sound(text: str, **told: Any) -> Config:
    config, faults = assembled(text, **told)
    assert faults == []
    return config


def faults(text: str, **told: Any) -> list[str]:
    return assembled(text, **told)[1]


MAIN = AgentPolicy(providers=frozenset({"*"}))


def test_nothing_said_is_every_default() -> None:
    """A broker without a file serves one agent from what this version can read."""
    config = sound("", file=None)
    assert (config.file, config.home, config.run_dir) == (None, Path("/home/me/.equabot"), Path("/run/equabot"))
    assert config.state_path == Path("/run/equabot/state.db")
    assert config.listen == Listen()
    assert config.policies.agents == {"main": MAIN}
    assert config.sources == (
        SourceSpec("mounted", {"path": Path("/run/secrets/equabot")}),
        SourceSpec("profile_store", {}),
        SourceSpec("claude_cli", {"path": Path("/home/me/.claude/.credentials.json")}),
        SourceSpec("codex_cli", {"path": Path("/home/me/.codex/auth.json")}),
        SourceSpec("qwen_cli", {"path": Path("/home/me/.qwen/oauth_creds.json")}),
        SourceSpec("dotenv", {"path": Path("/home/me/.equabot/.env")}),
        SourceSpec("env", {}),
    )
    assert config.leases == LeaseOptions(default_ttl=900.0, max_ttl=3600.0)
    assert (config.cooldowns, config.probe) == (CooldownOptions(), True)
    assert not sound("auth: {probe: false}").probe
    assert (config.expiry.warn_within, config.expiry.stale_budget) == (86400.0, 600.0)
    assert (config.required, dict(config.order), config.rules.bindings) == ((), {}, {})
    assert config.audit.path is None
    assert config.seal_key_file is None
    assert config.rules.foreign_logins == FOREIGN_LOGINS


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/a/b", "/a/b"),
        ("~/a", "/home/me/a"),
        ("~", "/home/me"),
        ("a", "/etc/equabot/a"),
    ],
)
def test_paths_are_full(written: str, path: str) -> None:
    """`~` is the user's home; a relative path starts where the file is."""
    config = sound(f"state_path: '{written}'\nsources: [dotenv: {{path: '{written}'}}]\naudit: {{path: '{written}'}}\n")
    assert config.state_path == config.audit.path == config.sources[0].options["path"] == Path(path)


def test_run_dir_of_flag_or_variable_goes_before_the_file() -> None:
    """Flag, variable, file, default; the state follows the run directory unless it has a place of its own."""
    assert sound("run_dir: /f").run_dir == Path("/f")
    assert sound("run_dir: /f", run_dir=Path("/v")).run_dir == Path("/v")
    assert sound("run_dir: /f", run_dir=Path("/v")).state_path == Path("/v/state.db")
    assert sound("state_path: /s/x.db", run_dir=Path("/v")).state_path == Path("/s/x.db")


def test_the_file_goes_before_listen_variables() -> None:
    """An image may move the default; what the file says explicitly stays."""
    told = {"health": Address("0.0.0.0", 1), "metrics": Address("0.0.0.0", 2)}
    listen = sound("listen: {health: '127.0.0.1:9'}", listen=told).listen
    assert listen == Listen(health=Address("127.0.0.1", 9), metrics=Address("0.0.0.0", 2))


def test_each_socket_may_lie_elsewhere() -> None:
    """A pod keeps the operators' sockets on a volume that no agent mounts."""
    listen = sound("listen: {admin: 'unix:/x/a.sock', control: /x/c.sock}\nagents: {main: {socket: ~/m.sock}}\n").listen
    assert listen == Listen(admin=Path("/x/a.sock"), control=Path("/x/c.sock"), agents={"main": Path("/home/me/m.sock")})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "listen:\n  health: 127.0.0.1:9000\n  metrics: 127.0.0.1:9000\n",
            ["3: listen.metrics: has the port of listen.health (127.0.0.1:9000); choose another port"],
        ),
        (
            "listen:\n  health: '[::]:9464'\n",
            ["2: listen.health: has the port of listen.metrics (127.0.0.1:9464); choose another port"],
        ),
        (
            "listen:\n  gateway: localhost:8686\n",
            ["2: listen.gateway: has the port of listen.health (127.0.0.1:8686); choose another port"],
        ),
        ("listen: {health: '127.0.0.1:0', metrics: '127.0.0.1:0'}", []),
        ("listen: {health: '127.0.0.1:9000', metrics: '127.0.0.2:9000'}", []),
    ],
)
def test_addresses_do_not_share_a_port(text: str, found: list[str]) -> None:
    """Told before a bind fails; different hosts and free ports are no clash."""
    assert faults(text) == found


LONG = "/" + "x" * 100


@pytest.mark.parametrize(
    ("text", "told", "begins"),
    [
        (f"run_dir: {LONG}", {}, "1: run_dir: the socket of agent 'main' has a path of"),
        ("", {"run_dir": Path(LONG)}, "run directory: the socket of agent 'main' has a path of"),
        (f"listen:\n  admin: {LONG}/y.sock", {}, "2: listen.admin: the admin socket has a path of"),
        (f"agents:\n  a:\n    socket: {LONG}/y.sock", {}, "3: agents.a.socket: the socket of agent 'a' has a path of"),
        ("agents:\n  a: {socket: /x/s}\n  b:\n    socket: /x/s", {}, "2: agents.a.socket: "),
        ("listen:\n  control: /run/equabot/main/c.sock", {}, "2: listen.control: "),
    ],
)
def test_sockets_that_could_not_be_are_faults(text: str, told: dict[str, Any], begins: str) -> None:
    """Too long for the system, at one path, or in the reach of an agent that has no right to it: told before a start."""
    found = faults(text, **told)
    assert found[0].startswith(begins)


# --- agents -----------------------------------------------------------------------------------------------------------


def test_agents_are_exactly_those_listed() -> None:
    """Deny by default: a section given replaces `main`, and an agent without `providers` has none."""
    agents = sound("agents: {coder: , writer: {providers: [claude]}}").policies.agents
    assert agents == {"coder": AgentPolicy(), "writer": AgentPolicy(providers=frozenset({"anthropic"}))}


def test_main_has_every_provider_unless_it_says_otherwise() -> None:
    """`main` is the agent of a broker that nobody configured."""
    assert sound("agents: {main: }").policies.agents == {"main": MAIN}
    assert sound("agents: {main: {providers: []}}").policies.agents == {"main": AgentPolicy()}


def test_an_agents_bounds() -> None:
    """Every key of an agent, with its providers and profiles under their own names."""
    text = """
agents:
  coder:
    providers: [z.ai, openai]
    profiles: ["z.ai:work", "openai:env"]
    deliveries: [raw]
    max_ttl: 5m
    max_leases: 3
    rate: 30/m
    burst: 7
    max_requests: 9
"""
    assert sound(text).policies.agents["coder"] == AgentPolicy(
        providers=frozenset({"zai", "openai"}),
        profiles=frozenset({"zai:work", "openai:env"}),
        deliveries=(Delivery.RAW,),
        max_ttl=300.0,
        max_leases=3,
        rate=0.5,
        burst=7,
        max_requests=9,
    )


def test_rules_of_what_may_be_asked_through_the_gateway() -> None:
    """Of an agent and of a provider, in their usual spelling; a provider's stand instead of the built-in ones."""
    rules = "requests: ['POST  /v1/messages', '!/v1/files*']"
    config = sound(f"agents: {{a: {{{rules}}}}}\nproviders: {{anthropic: {{{rules}}}, openai: {{requests: []}}}}\n")
    assert config.policies.of("a").requests == ("POST /v1/messages", "!/v1/files*")
    assert config.catalog.providers["anthropic"].requests == ("POST /v1/messages", "!/v1/files*")
    assert config.catalog.providers["openai"].requests == ()


def test_what_goes_on_to_a_provider_is_added_to_what_is_known() -> None:
    """And the gateway's limits are numbers."""
    given = "{forward_headers: [X-Team, 'X-Trace-*'], query: [team], subprotocols: [acme.v1]}"
    config = sound(f"providers: {{openai: {given}}}\ngateway: {{memory: 512Mi, max_connections: 100}}\n")
    openai, before = config.catalog.providers["openai"], PROVIDERS["openai"]
    assert openai.forward_headers == (*before.forward_headers, "X-Team", "X-Trace-*")
    assert (openai.query, openai.subprotocols) == ((*before.query, "team"), (*before.subprotocols, "acme.v1"))
    assert (config.gateway.memory, config.gateway.max_connections) == (512 << 20, 100)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("forward_headers: [Cookie]", "'Cookie' would be a second credential"),
        ("forward_headers: [Authorization]", "'Authorization' holds the credential"),
        ("forward_headers: [X_Api_Key]", "'X_Api_Key' holds the credential"),
        ("forward_headers: [X-Acme-Key], headers: {api_key: {name: x-acme-key}}", "'X-Acme-Key' holds the credential"),
        ("forward_headers: [X-Request-Id]", "'X-Request-Id' is the gateway's own header"),
        ("forward_headers: [X-Envoy-Anything]", "'X-Envoy-Anything' is the gateway's own header"),
        ("forward_headers: ['X-Equabot-*']", "'X-Equabot-*' is the gateway's own header"),
        ("forward_headers: [Host]", "'Host' belongs to one connection"),
        ("query: [api_key]", "'api_key' is for a key"),
        ("query: [API-KEY]", "'API-KEY' is for a key"),
        ("query: [access_token]", "'access_token' is for a key"),
    ],
)
def test_what_never_goes_on_to_a_provider_is_not_listed(listed: str, why: str) -> None:
    """C16: a line without effect would be believed; each is refused with its place and the reason."""
    key = listed.partition(":")[0]
    (fault,) = faults(f"providers:\n  openai: {{{listed}}}\n")
    assert f"providers.openai.{key}[0]: {why}" in fault
    assert fault.endswith("; remove it")


def test_an_agents_leases_live_as_long_as_any() -> None:
    """Without a bound of its own an agent has that of all leases."""
    assert sound("leases: {max_ttl: 2h}\nagents: {a: }").policies.of("a").max_ttl == 7200.0
    assert sound("leases: {max_ttl: 2h}").policies.of("main").max_ttl == 7200.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("agents: {}", "1: agents: has no agent, so it refuses every caller; add one, or remove the section to have `main`"),
        (
            "agents:\n  a: {providers: [antropic]}\n",
            "2: agents.a.providers[0]: provider 'antropic' is unknown; did you mean 'anthropic'?",
        ),
        (
            "agents:\n  a:\n    providers: ['*']\n    profiles: ['acme:x']\n",
            "4: agents.a.profiles[0]: provider 'acme' is unknown; describe it under providers",
        ),
        (
            "agents:\n  a:\n    max_ttl: 2h\n",
            "3: agents.a.max_ttl: is longer than leases.max_ttl (1h); reduce it, or raise leases.max_ttl",
        ),
        (
            "agents:\n  admin:\n",
            "2: agents.admin: 'admin' is the name of a socket directory of the broker; give the agent another name",
        ),
    ],
)
def test_agents_that_are_refused(text: str, found: str) -> None:
    """What would silently give an agent less than its section says is a fault."""
    assert faults(text) == [found]


# --- providers and profiles -------------------------------------------------------------------------------------------


def test_required_providers_are_known_ones() -> None:
    """In any spelling, once each."""
    assert sound("required: [z.ai, zai, anthropic]").required == ("zai", "anthropic")
    assert faults("required:\n  - anthropic\n  - opnai\n") == [
        "3: required[1]: provider 'opnai' is unknown; did you mean 'openai'?"
    ]


def test_an_order_holds_profiles_of_its_provider() -> None:
    """An order is exclusive: a profile of another provider could never serve."""
    assert dict(sound("auth: {order: {claude: ['claude:a', 'anthropic:b']}}").order) == {
        "anthropic": ("anthropic:a", "anthropic:b")
    }
    assert faults("auth:\n  order:\n    anthropic: ['anthropic:a', 'openai:b']\n    claude: ['anthropic:c']\n") == [
        "3: auth.order.anthropic[1]: is not a profile of anthropic; move it to the order of its own provider",
        "4: auth.order.claude: is another spelling of anthropic, which is listed above; keep one",
    ]


def test_profiles_become_bindings_and_overrides() -> None:
    """Where a value is, and what is said of it, by the profile's own id."""
    text = """
sources: [mounted, dotenv, env]
profiles:
  anthropic:a: {from: {env: A}, mode: token, expires_at: 1970-01-01T00:01:00Z, alias: short}
  claude:b: {from: {dotenv: B}}
  openai:c: {from: {mounted: {dir: llm, key: C}}}
  openai:d: {from: {mounted: {key: D}}}
  openai:env: {expires_at: 1970-01-01T00:02:00Z}
"""
    config = sound(text)
    assert dict(config.rules.bindings) == {
        ValueLocation("env", "", "A"): "anthropic:a",
        ValueLocation("dotenv", "", "B"): "anthropic:b",
        ValueLocation("mounted", "llm", "C"): "openai:c",
        ValueLocation("mounted", "", "D"): "openai:d",
    }
    assert dict(config.rules.overrides) == {
        "anthropic:a": Override(mode=Mode.TOKEN, expires_at=60.0),
        "anthropic:b": Override(),
        "openai:c": Override(),
        "openai:d": Override(),
        "openai:env": Override(expires_at=120.0),
    }
    assert config.rules.catalog is config.catalog
    assert dict(config.profile_aliases) == {"short": "anthropic:a"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "profiles:\n  openai:a: {from: {env: A}}\n  openai:b: {from: {env: A}}\n",
            "3: profiles.openai:b.from: is already the value of openai:a; keep one of the two profiles",
        ),
        (
            "sources: [env]\nprofiles:\n  openai:a: {from: {dotenv: A}}\n",
            "3: profiles.openai:a.from: there is no source of kind dotenv; add it to sources",
        ),
        (
            "profiles:\n  openai:a: {from: {kubernetes: {secret: s, key: A}}}\n",
            "2: profiles.openai:a.from: there is no source of kind kubernetes; add it to sources",
        ),
        (
            "profiles:\n  zai:a: {mode: token}\n  z.ai:a: {mode: token}\n",
            "3: profiles.z.ai:a: is another spelling of zai:a, which is listed above; keep one",
        ),
        (
            "profiles:\n  acme:a: {mode: token}\n",
            "2: profiles.acme:a: provider 'acme' is unknown; describe it under providers",
        ),
        (
            "profiles:\n  openai:a: {alias: x}\n  openai:b: {alias: x}\n",
            "3: profiles.openai:b.alias: is already the alias of openai:a; choose another alias",
        ),
        (
            "profiles:\n  openai:a: {from: {mounted: {dir: x}}}\n",
            "2: profiles.openai:a.from: lacks key; add it",
        ),
    ],
)
def test_profiles_that_are_refused(text: str, found: str) -> None:
    """A profile that could never have a value, or would share one, is a fault."""
    assert faults(text) == [found]


def test_profiles_of_the_seeds_configuration() -> None:
    """`auth.profiles` is kept as data; `token` for Claude's login becomes `oauth`, as it always meant."""
    text = "auth: {profiles: {'anthropic:claude-cli': {mode: token, email: a@b.c}, 'openai:x': {provider: openai}}}"
    assert dict(sound(text).profiles) == {
        "anthropic:claude-cli": ConfiguredProfile(provider="anthropic", mode=Mode.OAUTH, email="a@b.c"),
        "openai:x": ConfiguredProfile(provider="openai"),
    }
    assert faults("auth: {profiles: {'openai:x': {provider: anthropic}}}") == [
        "1: auth.profiles.openai:x.provider: differs from the provider in the profile's id; write openai, or remove it"
    ]


# --- sources ----------------------------------------------------------------------------------------------------------


def test_sources_keep_their_order() -> None:
    """The order is the precedence; a kind alone has its default place."""
    assert sound("sources: [env, mounted: {path: /b}, mounted, dotenv]").sources == (
        SourceSpec("env", {}),
        SourceSpec("mounted", {"path": Path("/b")}),
        SourceSpec("mounted", {"path": Path("/run/secrets/equabot")}),
        SourceSpec("dotenv", {"path": Path("/home/me/.equabot/.env")}),
    )


def test_secrets_are_named_and_found_as_written() -> None:
    """A kubeconfig's path starts where the file is; names are such as Kubernetes has."""
    written = "sources: [kubernetes: {selector: 'a=b', names: [llm, x.y-1], namespace: apps, kubeconfig: ./k}]"
    (spec,) = sound(written).sources
    assert spec.kind == "kubernetes"
    assert dict(spec.options) == {
        "selector": "a=b",
        "names": ("llm", "x.y-1"),
        "namespace": "apps",
        "kubeconfig": Path("/etc/equabot/k"),
    }


@pytest.mark.parametrize("name", ["LLM", "a/b", "a,b", "-a", "a.", "a" * 254, "../x"])
def test_a_name_that_no_object_has_is_refused(name: str) -> None:
    """It becomes a part of a URL."""
    (found,) = faults(f"sources: [kubernetes: {{names: [{name!r}]}}]")
    assert "is not a Kubernetes name; use a-z, 0-9, - and ." in found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "sources:\n  - kubernetes: {kubeconfig: k}\n  - kubernetes: {kubeconfig: ./k}\n",
            "3: sources[1]: is the same as a source above; keep one",
        ),
        (
            "sources:\n  - dotenv\n  - dotenv: {path: ~/.equabot/.env}\n",
            "3: sources[1]: is the same as a source above; keep one",
        ),
        ("sources:\n  - mountd: {path: /x}\n", "2: sources[0]: unknown key; did you mean 'mounted'?"),
        ("sources: []", "1: sources: is empty; list at least one, or remove the key"),
        ("sources:\n  - env: {path: /x}\n", "2: sources[0].env.path: unknown key; known keys: none"),
    ],
)
def test_sources_that_are_refused(text: str, found: str) -> None:
    """A source that is named is wanted: one that cannot be had is a fault, not silence."""
    assert faults(text) == [found]


def test_logins_of_other_tools_are_refreshed_only_where_it_is_said() -> None:
    """The rule is about the profile, wherever it stands; the place is all that the source needs to know."""
    config = sound("sources:\n  - claude_cli: {refresh: true, path: ~/x}\n  - codex_cli: {refresh: false}\n  - qwen_cli\n")
    assert config.sources == (
        SourceSpec("claude_cli", {"path": Path("/home/me/x")}),
        SourceSpec("codex_cli", {"path": Path("/home/me/.codex/auth.json")}),
        SourceSpec("qwen_cli", {"path": Path("/home/me/.qwen/oauth_creds.json")}),
    )
    assert FOREIGN_LOGINS - config.rules.foreign_logins == {"anthropic:claude-cli"}


def test_stores_are_sealed_with_a_key_from_a_file() -> None:
    """Which has to be named."""
    assert sound("seal: {key_file: ~/seal.key}").seal_key_file == Path("/home/me/seal.key")
    assert faults("seal: {}") == ["1: seal: lacks key_file; add it"]


# --- durations --------------------------------------------------------------------------------------------------------


def test_a_shorter_maximum_shortens_the_default() -> None:
    """Only what was said explicitly can contradict the maximum."""
    assert sound("leases: {max_ttl: 5m}").leases == LeaseOptions(default_ttl=300.0, max_ttl=300.0)
    assert faults("leases:\n  default_ttl: 2h\n") == [
        "2: leases.default_ttl: is longer than leases.max_ttl (1h); reduce it, or raise leases.max_ttl"
    ]


def test_a_rule_is_not_applied_to_what_was_not_understood() -> None:
    """One mistake is one fault."""
    assert faults("leases: {default_ttl: 2h, max_ttl: 3}\nagents: {a: {max_ttl: 2h}}") == [
        "1: leases.max_ttl: '3' has no unit; write 15m, 1h, 90s or 1h30m"
    ]
    assert faults("agents: {A: }") == [
        "1: agents.A: is not a valid agent name; use up to 63 of a-z, 0-9, - and _, and begin with a letter or a digit"
    ]


def test_cooldowns_in_either_spelling() -> None:
    """Durations, or the seed's hours."""
    expected = CooldownOptions(
        billing_backoff=7200.0,
        billing_backoff_by_provider={"zai": 1800.0},
        billing_max=36000.0,
        failure_window=3600.0,
        retry_after_max=86400.0,
    )
    ours = "billing_backoff: 2h, billing_backoff_by_provider: {z.ai: 30m}, billing_max: 10h, failure_window: 1h"
    seeds = "billingBackoffHours: 2, billingBackoffHoursByProvider: {z.ai: 0.5}, billingMaxHours: 10, failureWindowHours: 1"
    assert sound(f"auth: {{cooldowns: {{{ours}}}}}").cooldowns == expected
    assert sound(f"auth: {{cooldowns: {{{seeds}}}}}").cooldowns == expected
    assert faults("auth: {cooldowns: {billing_backoff: 2h, billingBackoffHours: 2}}") == [
        "1: auth.cooldowns.billingBackoffHours: sets the same as another key of this section; keep one"
    ]


def test_models_are_of_known_providers() -> None:
    """They say which providers are in use."""
    models = sound("models: {default: anthropic/c, fallbacks: [openrouter/a/b], aliases: {s: zai/g}}").models
    assert (models.default, models.fallbacks, dict(models.aliases)) == ("anthropic/c", ("openrouter/a/b",), {"s": "zai/g"})
    assert faults("models:\n  default: acme/x\n  fallbacks: [openai/x, acme/y]\n  aliases: {s: acme/z}\n") == [
        "2: models.default: provider 'acme' is unknown; describe it under providers",
        "3: models.fallbacks[1]: provider 'acme' is unknown; describe it under providers",
        "4: models.aliases.s: provider 'acme' is unknown; describe it under providers",
    ]


EXEC = "exec: {command: [/usr/bin/op, read, read], ids: {openai:a: a}"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("exec", "lacks command and ids"),
        ("exec: {command: [op], ids: {openai:a: a}}", "the absolute path"),
        ("exec: {command: [], ids: {openai:a: a}}", "the absolute path"),
        ("exec: {command: /usr/bin/op, ids: {openai:a: a}}", "must be a list"),
        ("exec: {command: [/usr/bin/op], ids: {}}", "from 1 to 512 profiles"),
        ("exec: {command: [/usr/bin/op], ids: {openai: a}}", "is not a profile id"),
        ("exec: {command: [/usr/bin/op], ids: {openai:a: '-x'}}", "is not an id"),
        ("exec: {command: [/usr/bin/op], ids: {openai:a: a, openai:b: b}, output: value}", "keep one profile in ids"),
        (f"{EXEC}, output: text}}", "must be protocol or value"),
        (f"{EXEC}, timeout: 6m}}", "at most 5m"),
        (f"{EXEC}, name: Op}}", "small letters"),
        (f"{EXEC}, shell: true}}", "unknown key"),
        (f"{EXEC}}}\n  - {EXEC}}}", "is in the list already"),
        (f"{EXEC}}}\n  - {EXEC}, refresh: 1m}}", "has the name of a source above"),
    ],
)
def test_a_program_is_refused_with_one_reason(written: str, fault: str) -> None:
    (found,) = faults(f"sources:\n  - {written}")
    assert fault in found


def test_two_sources_run_one_program_under_two_names() -> None:
    config = sound(f"sources:\n  - {EXEC}}}\n  - {EXEC}, name: second}}")
    assert [config.kinds[spec.kind].shown(spec.options) for spec in config.sources] == ["op", "second"]
