"""The chat command `/model`: how it is read, what it does to a broker, what it says. Both twins are held to the same rules."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import equabot_client
import equabot_client.aio
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import errors
from equabot_client.model_command import (
    Action,
    AsyncModelSwitch,
    CommandError,
    ModelCommand,
    ModelSwitch,
    Reply,
    is_command,
    parse,
)
from tests.fakes.broker_servicer import FakeBroker, Refusal

SONNET, OPUS, GPT = "anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-5", "openai/gpt-5"
ALIASES = {"sonnet": SONNET, "opus": OPUS, "gpt": GPT}

# -- reading ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/model", ModelCommand(Action.LIST)),
        ("  /MODEL \n", ModelCommand(Action.LIST)),
        ("/model list", ModelCommand(Action.LIST)),
        ("/Model\t STATUS ", ModelCommand(Action.STATUS)),
        ("/model sonnet", ModelCommand(Action.SWITCH, "sonnet")),
        ("/model 2@work", ModelCommand(Action.SWITCH, "2", "work")),
        ("/model sonnet@anthropic:claude-cli", ModelCommand(Action.SWITCH, "sonnet", "anthropic:claude-cli")),
        ("/model   Sonnet  @  work ", ModelCommand(Action.SWITCH, "Sonnet", "work")),
        ("/model z.ai/glm@zai:me@example.com", ModelCommand(Action.SWITCH, "z.ai/glm", "zai:me@example.com")),
        ("/model x@20250101", ModelCommand(Action.SWITCH, "x@20250101")),
        ("/model x@20250101@anthropic:work", ModelCommand(Action.SWITCH, "x@20250101", "anthropic:work")),
        ("/model x @20250101 @ work", ModelCommand(Action.SWITCH, "x@20250101", "work")),
        ("/model x@2025010", ModelCommand(Action.SWITCH, "x", "2025010")),
        ("/model x@202501011", ModelCommand(Action.SWITCH, "x", "202501011")),
        ("/model x@20250101a", ModelCommand(Action.SWITCH, "x", "20250101a")),
        ("/model cf/@cf/openai/gpt-oss@cf:a", ModelCommand(Action.SWITCH, "cf/@cf/openai/gpt-oss", "cf:a")),
        ("/model a@b/c", ModelCommand(Action.SWITCH, "a@b/c")),
    ],
)
def test_a_command_is_read(text: str, read: ModelCommand) -> None:
    """The profile begins at the first @ after the last /, unless a date does; case and blanks around words do not matter."""
    assert parse(text) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "no /model command"),
        ("", "no /model command"),
        ("/models", "no /model command"),
        ("/model@work", "no /model command"),
        ("/model @work", "no model is named"),
        ("/model @20250101", "no model is named"),
        ("/model @", "no model is named"),
        ("/model sonnet@", "a profile is named provider:name, or just name"),
        ("/model sonnet@:work", "a profile is named"),
        ("/model sonnet@anthropic:", "a profile is named"),
        ("/model sonnet@me@example:work", "a profile is named"),
        ("/model sonnet please", "not one model"),
        ("/model sonnet@my work", "not one model"),
        ("/model list all", "not one model"),
        ("/model son\x1bnet", "not one model"),
        ("/model " + "x" * 257, "not one model"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_would_do(text: str, why: str) -> None:
    """The text is for a person, short, and shows no control characters."""
    with pytest.raises(CommandError, match=why) as raised:
        parse(text)
    assert isinstance(raised.value, errors.InvalidArgument)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200


def test_a_message_is_told_from_a_command() -> None:
    """By its first word."""
    assert all(map(is_command, ["/model", " /MODEL x", "/model\nlist", "/model ???"]))
    assert not any(map(is_command, ["", "model", "/models", "use /model x", "/model@bot"]))


WORD = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-._"), min_size=1, max_size=12)
MODEL = st.builds(
    lambda path, name, date: "/".join([*path, name]) + date,
    st.lists(st.one_of(WORD, WORD.map("@{}".format)), max_size=3),
    WORD.filter(lambda word: word.lower() not in ("list", "status")),
    st.sampled_from(["", "@20250101"]),
)
PROFILE = st.builds(lambda provider, name: provider + name, st.one_of(st.just(""), WORD.map("{}:".format)), WORD)
BLANKS = st.text(" \t\n", max_size=3)


@given(MODEL, PROFILE.filter(lambda p: not (len(p) == 8 and p.isdigit())), BLANKS, BLANKS)
def test_written_value_is_read_back(model: str, profile: str, before: str, after: str) -> None:
    """Whatever model and profile are put together; without a profile, no part of the model is taken for one."""
    text = f"{before}/MoDeL {before}{model}{after}@{before}{profile}{after}"
    assert parse(text) == ModelCommand(Action.SWITCH, model, profile)
    assert parse(f"/model {model}{after}") == ModelCommand(Action.SWITCH, model)


@given(st.text(), st.text("@/: 20250101axé\x00\n", max_size=40))
def test_no_text_makes_it_stumble(anything: str, likely: str) -> None:
    """It is read, or refused with a CommandError; what is read has a model exactly when it switches, and no blanks."""
    for text in (anything, f"/model {anything}", f"/model {likely}"):
        try:
            read = parse(text)
        except CommandError:
            continue
        assert bool(read.model) == (read.action is Action.SWITCH)
        assert (read.model + read.profile).isprintable()
        assert " " not in read.model + read.profile
        assert parse(f"/model {read.model}@{read.profile}" if read.profile else f"/model {read.model}") == replace(
            read, action=read.action if read.model else Action.LIST
        )


# -- doing -----------------------------------------------------------------------------------------------------------------


class RankingBroker(FakeBroker):
    """Lists the profiles of the provider asked about, and remembers what is pinned; knows no provider without a profile."""

    def __init__(self) -> None:
        super().__init__()
        self.profiles = [
            status("anthropic:env", next=True),
            status("anthropic:Work"),
            status("openai:env", state="expired", reason="expired 3h ago", usable=False),
        ]

    def ListProfiles(self, request: pb.ListProfilesRequest, context: grpc.ServicerContext) -> pb.ListProfilesResponse:  # noqa: N802
        answer = super().ListProfiles(request, context)
        found = [profile for profile in answer.profiles if profile.provider == request.provider]
        if not found:
            self._refuse(Refusal(grpc.StatusCode.NOT_FOUND, "PROVIDER_UNKNOWN", f"{request.provider} is unknown"), context)
        return pb.ListProfilesResponse(profiles=found)

    def PinProfile(self, request: pb.PinProfileRequest, context: grpc.ServicerContext) -> pb.PinProfileResponse:  # noqa: N802
        answer = super().PinProfile(request, context)
        self._pin(request.provider, request.profile)
        return answer

    def UnpinProfile(self, request: pb.UnpinProfileRequest, context: grpc.ServicerContext) -> pb.UnpinProfileResponse:  # noqa: N802
        answer = super().UnpinProfile(request, context)
        self._pin(request.provider, "")
        return answer

    def _pin(self, provider: str, pinned: str) -> None:
        for profile in self.profiles:
            if profile.provider == provider:
                profile.pinned = profile.id == pinned

    def asked(self, *methods: str) -> list[object]:
        """The requests of these methods."""
        return [request for call, request in zip(self.calls, self.requests, strict=True) if call in methods]


def status(profile: str, **fields: object) -> pb.ProfileStatus:
    provider = profile.partition(":")[0]
    said = {"state": "ok", "reason": "ok", "usable": True, "mode": "api_key", "label": "sk-a…y0AA"} | fields
    return pb.ProfileStatus(id=profile, provider=provider, base_url=f"https://api.{provider}.com", **said)  # type: ignore[arg-type]


@pytest.fixture
def fake() -> Iterator[RankingBroker]:
    with RankingBroker() as started:
        yield started


@pytest.fixture(params=["threads", "event loop"])
def say(request: pytest.FixtureRequest, fake: RankingBroker) -> Iterator[Callable[[str], Reply]]:
    """Gives a command to a conversation on sonnet, of either twin."""
    if request.param == "threads":
        with equabot_client.connect(fake.address, timeout=60) as broker:
            yield ModelSwitch(broker, session="s", default="sonnet", aliases=ALIASES).handle
        return
    with asyncio.Runner() as runner:
        aio_broker = equabot_client.aio.connect(fake.address, timeout=60)
        models = AsyncModelSwitch(aio_broker, session="s", default="sonnet", aliases=ALIASES)
        yield lambda text: runner.run(models.handle(text))
        runner.run(aio_broker.close())


def test_the_list_numbers_the_models_and_says_who_would_serve_them(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """The current one is marked; `/model` is the same; nothing changes."""
    reply = say("/model")
    assert reply == say("/model list")
    assert reply == Reply(
        text="Model: anthropic/claude-sonnet-4-5\n"
        "1. anthropic/claude-sonnet-4-5 (sonnet): anthropic:env <- current\n"
        "2. anthropic/claude-opus-4-5 (opus): anthropic:env\n"
        "3. openai/gpt-5 (gpt): none is usable\n"
        "/model <number or name>, with @<profile> to pin one; /model status for more",
        model=SONNET,
        changed=False,
    )
    assert fake.calls == ["ListProfiles"] * 4
    assert fake.requests[0] == pb.ListProfilesRequest(provider="anthropic", session="s")


def test_the_status_shows_every_candidate_of_every_provider(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """In the broker's order, with its reasons and addresses, and no label of a secret."""
    say("/model opus@work")
    cooling = next(profile for profile in fake.profiles if profile.pinned)
    cooling.reason = "in cooldown for 4m59s"
    fake.profiles.append(status("openai:gone", mode="", state="missing", reason="no source holds it"))
    reply = say("/model status")
    assert reply.text == (
        "Model: anthropic/claude-opus-4-5 (opus)\nProfile: anthropic:env; pinned: anthropic:Work (in cooldown for 4m59s)\n"
        "\n"
        "anthropic at https://api.anthropic.com: anthropic/claude-sonnet-4-5 (sonnet), anthropic/claude-opus-4-5 (opus)\n"
        "1. anthropic:env (api_key): ok, next\n"
        "2. anthropic:Work (api_key): ok, pinned, in cooldown for 4m59s\n"
        "\n"
        "openai at https://api.openai.com: openai/gpt-5 (gpt)\n"
        "1. openai:env (api_key): expired, expired 3h ago\n"
        "2. openai:gone: missing, no source holds it"
    )
    assert (reply.model, reply.changed) == (OPUS, False)


@pytest.mark.parametrize("written", ["opus", "OPUS", "2", "anthropic/claude-opus-4-5", "Anthropic/Claude-Opus-4-5"])
def test_a_model_is_switched_to_by_alias_number_or_name(say: Callable[[str], Reply], fake: RankingBroker, written: str) -> None:
    """And the session's pin is taken away. Saying it twice changes nothing more."""
    fake.profiles[1].pinned = True
    reply = say(f"/model {written}")
    assert reply == Reply(text="Model: anthropic/claude-opus-4-5 (opus)\nProfile: anthropic:env", model=OPUS, changed=True)
    assert reply.provider == "anthropic"
    assert fake.asked("UnpinProfile", "PinProfile") == [pb.UnpinProfileRequest(session="s", provider="anthropic")]
    assert say(f"/model {written}") == replace(reply, changed=False)


@pytest.mark.parametrize("written", ["sonnet@anthropic:Work", "sonnet@work", "1@ANTHROPIC:WORK"])
def test_a_profile_is_pinned_by_its_id_or_name(say: Callable[[str], Reply], fake: RankingBroker, written: str) -> None:
    """Whatever the case. The pin alone is a change, and so is its end."""
    reply = say(f"/model {written}")
    pinned = pb.PinProfileRequest(session="s", provider="anthropic", profile="anthropic:Work")
    assert fake.asked("UnpinProfile", "PinProfile") == [pinned]
    assert (reply.model, reply.changed) == (SONNET, True)
    assert say(f"/model {written}").changed is False
    assert say("/model sonnet").changed is True


def test_names_that_differ_in_case_alone_are_taken_as_written(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """The broker decides."""
    fake.profiles.append(status("anthropic:work"))
    say("/model sonnet@WORK")
    say("/model sonnet@work")
    assert [request.profile for request in fake.asked("PinProfile")] == ["WORK", "work"]  # type: ignore[attr-defined]


def test_a_pinned_profile_that_serves_is_said_so(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """In the reply and in the list."""
    fake.profiles[0].next, fake.profiles[1].next = False, True
    assert say("/model sonnet@work").text == "Model: anthropic/claude-sonnet-4-5 (sonnet)\nProfile: anthropic:Work (pinned)"
    assert "1. anthropic/claude-sonnet-4-5 (sonnet): anthropic:Work (pinned) <- current" in say("/model").text


def test_a_model_without_an_alias_joins_the_list_while_it_is_current(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """At its end, so that no number changes."""
    fake.profiles.append(status("openrouter:env", next=True))
    assert say("/model OpenRouter/Qwen/Qwen3@20250101").model == "openrouter/Qwen/Qwen3@20250101"
    assert "\n4. openrouter/Qwen/Qwen3@20250101: openrouter:env <- current\n" in say("/model").text
    assert say("/model 2").model == OPUS
    assert "\n4. " not in say("/model").text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/model sonet", "no model 'sonet': there is sonnet, opus, gpt, any provider/model"),
        ("/model 4", "there is no model number 4: the list goes from 1 to 3"),
        ("/model 0", "there is no model number 0"),
        ("/model anthropic/", "no model 'anthropic/'"),
        ("/model /opus", "no model '/opus'"),
        ("/model opus@", "a profile is named"),
    ],
)
def test_a_command_that_makes_no_sense_never_reaches_the_broker(
    say: Callable[[str], Reply], fake: RankingBroker, text: str, why: str
) -> None:
    """It says what would."""
    with pytest.raises(CommandError, match=why):
        say(text)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("method", "reason", "kind"),
    [
        ("PinProfile", "PROFILE_NOT_FOUND", errors.ProfileNotFound),
        ("PinProfile", "INVALID_ARGUMENT", errors.InvalidArgument),
        ("ListProfiles", "POLICY_DENIED", errors.PolicyDenied),
    ],
)
def test_what_the_broker_refuses_changes_nothing(
    say: Callable[[str], Reply], fake: RankingBroker, method: str, reason: str, kind: type[errors.EquabotError]
) -> None:
    """Its own words go to the chat; the model and the pin stay."""
    say("/model sonnet@work")
    fake.refusals[method] = Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason, "no, and this is why")
    with pytest.raises(kind, match="no, and this is why"):
        say("/model opus@nobody")
    if method == "ListProfiles":
        assert "sonnet-4-5 (sonnet): none: no, and this is why <- current" in say("/model").text
    del fake.refusals[method]
    assert say("/model sonnet@work").changed is False


def test_a_provider_that_is_unknown_is_refused_and_shown(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """Switching to it is refused before any pin changes; one in the list does not hide the others."""
    with pytest.raises(errors.ProviderUnknown, match="moon is unknown"):
        say("/model moon/gpt-0")
    assert fake.calls == ["ListProfiles"]
    fake.profiles = fake.profiles[:2]
    assert "3. openai/gpt-5 (gpt): none: openai is unknown" in say("/model").text
    assert say("/model status").text.endswith("\n\nopenai: openai/gpt-5 (gpt)\n   openai is unknown")


def test_a_broker_that_is_away_is_an_error_even_of_the_list(say: Callable[[str], Reply], fake: RankingBroker) -> None:
    """There is nothing to show."""
    fake.stop()
    with pytest.raises(errors.BrokerUnavailable):
        say("/model")


def test_strict_choices_admit_nothing_beside_the_list(fake: RankingBroker) -> None:
    """Aliases, numbers, and the listed models by name."""
    with equabot_client.connect(fake.address, timeout=60) as broker:
        models = ModelSwitch(broker, session="s", default=GPT, aliases={"sonnet": SONNET}, strict=True)
        assert models.handle("/model anthropic/claude-sonnet-4-5").model == models.model == SONNET
        assert models.handle("/model 2").model == models.model == GPT
        with pytest.raises(CommandError, match=r"no model 'anthropic/claude-opus-4-5': there is sonnet$"):
            models.handle("/model anthropic/claude-opus-4-5")


@pytest.mark.parametrize(
    ("session", "default", "aliases"),
    [
        ("", SONNET, {}),
        ("s", "sonnet", {}),
        ("s", "anthropic/", {}),
        ("s", SONNET, {"gpt": "gpt-5"}),
        ("s", SONNET, {"Gpt": GPT, "gpt": GPT}),
        *(("s", SONNET, {alias: GPT}) for alias in ["", "list", "Status", "a b", "a@b", "a/b", "7"]),
    ],
)
def test_choices_that_could_never_be_made_are_refused_at_once(session: str, default: str, aliases: dict[str, str]) -> None:
    """An author's mistake shows when the agent starts, not in the chat."""
    with equabot_client.connect("unix:/nowhere/broker.sock") as broker, pytest.raises(ValueError, match=r"session|alias|form"):
        ModelSwitch(broker, session=session, default=default, aliases=aliases)


def test_commands_given_at_once_are_followed_one_after_the_other(fake: RankingBroker) -> None:
    """Else the model of one could stay with the pin of another."""
    with equabot_client.connect(fake.address, timeout=60) as broker, ThreadPoolExecutor(8) as pool:
        models = ModelSwitch(broker, session="s", default=SONNET, aliases=ALIASES)
        at_once = threading.Barrier(8)

        def give(text: str) -> Reply:
            at_once.wait()
            return models.handle(text)

        list(pool.map(give, ["/model sonnet@work", "/model opus@env"] * 4))
    assert fake.calls == ["ListProfiles", "PinProfile", "ListProfiles"] * 8
    pinned = {SONNET: "anthropic:Work", OPUS: "anthropic:env"}[models.model]
    assert fake.asked("PinProfile")[-1].profile == pinned  # type: ignore[attr-defined]


async def test_an_event_loop_follows_them_one_after_the_other_too(fake: RankingBroker) -> None:
    """As many as are waiting."""
    async with equabot_client.aio.connect(fake.address, timeout=60) as broker:
        models = AsyncModelSwitch(broker, session="s", default=SONNET, aliases=ALIASES)
        await asyncio.gather(*(models.handle(text) for text in ["/model sonnet@work", "/model opus@env"] * 4))
        assert fake.calls == ["ListProfiles", "PinProfile", "ListProfiles"] * 8
        assert models.model == OPUS
