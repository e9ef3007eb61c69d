"""The chat command `/model`, for agents that let the people they talk to choose.

    models = ModelSwitch(broker, session="chat-7", default="sonnet", aliases={"sonnet": "anthropic/claude-sonnet-4-5"})
    if is_command(text):
        reply = models.handle(text)

| written | does |
|---|---|
| `/model`, `/model list` | a numbered list of the models, each with the profile that would serve it |
| `/model status` | every provider's candidates in order: state, reason, which is next, which is pinned; base URL |
| `/model <model>` | switches, and takes the pin away |
| `/model <model>@<profile>` | switches, and pins the session to that profile of the model's provider |

A model is an alias, a number of the list or `provider/model`; a profile is `provider:name` or just `name`.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equabot_client import _model_views as views
from equabot_client import errors
from equabot_client._lease import Profile
from equabot_client._model_names import Action, Choices, CommandError, ModelCommand, is_command, parse, profile_id, provider_of
from equabot_client.aio.broker import AsyncBroker
from equabot_client.broker import Broker

__all__ = ["Action", "AsyncModelSwitch", "CommandError", "ModelCommand", "ModelSwitch", "Reply", "is_command", "parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a command. `text` is for the chat: plain, without secrets. `model` is the `provider/model` in effect now.
    `changed`: the model or the pin is another than before, so that the next request wants a new lease."""

    text: str
    model: str
    changed: bool

    @property
    def provider(self) -> str:
        """Whose credential the model needs."""
        return provider_of(self.model)


class _Conversation:
    def __init__(self, *, session: str, default: str, aliases: Mapping[str, str], strict: bool) -> None:
        if not session:
            raise ValueError("session: a name is needed, for pins are kept under it")
        self._session = session
        self._choices = Choices(default=default, aliases=aliases, strict=strict)
        self._model = self._choices.default

    @property
    def model(self) -> str:
        """The `provider/model` in effect."""
        return self._model

    def _providers(self) -> list[str]:
        """Those of the models in the list, the current one's first."""
        return list(dict.fromkeys(map(provider_of, [self._model, *self._choices.listed(self._model)])))

    def _show(self, action: Action, found: Mapping[str, views.Candidates]) -> Reply:
        view = views.status if action is Action.STATUS else views.picker
        text = view(self._choices.listed(self._model), self._model, found)
        return Reply(text=text, model=self._model, changed=False)

    def _find(self, command: ModelCommand) -> tuple[str, str]:
        """The model that is meant, and its provider."""
        model = self._choices.find(command.model, current=self._model)
        return model, provider_of(model)

    def _switch(self, model: str, before: Sequence[Profile], after: Sequence[Profile]) -> Reply:
        """`before` and `after`: the candidates of its provider then and now."""
        changed = model != self._model or views.pinned_id(before) != views.pinned_id(after)
        self._model = model
        text = views.switched(model, self._choices.listed(model)[model], after)
        return Reply(text=text, model=model, changed=changed)


class ModelSwitch(_Conversation):
    """The model of one session, for threads. Commands are followed one after the other, whoever gives them.

    `aliases` are `provider/model` by name; `default`, one of either, is in effect at first: to go on after a restart of the
    agent, give what the last Reply said. `strict` admits no model beside these. Pins are the broker's, and outlive both.
    Raises ValueError for an alias that cannot be written, and for a model that is not of the form `provider/model`.
    """

    def __init__(self, broker: Broker, *, session: str, default: str, aliases: Mapping[str, str], strict: bool = False) -> None:
        super().__init__(session=session, default=default, aliases=aliases, strict=strict)
        self._broker, self._lock = broker, threading.Lock()

    def handle(self, text: str) -> Reply:
        """Follows a command. Raises CommandError for what makes no sense, and the broker's own EquabotError (ProfileNotFound,
        InvalidArgument for a profile of another provider, ProviderUnknown, PolicyDenied…): the text of each is for the chat,
        and the model is the same as before."""
        command = parse(text)
        with self._lock:
            if command.action is not Action.SWITCH:
                return self._show(command.action, {provider: self._look(provider) for provider in self._providers()})
            model, provider = self._find(command)
            before = self._candidates(provider)  # a provider that is unknown or not allowed ends it here
            if command.profile:
                self._broker.pin(self._session, provider, profile=profile_id(command.profile, before))
            else:
                self._broker.unpin(self._session, provider)
            return self._switch(model, before, self._candidates(provider))

    def _candidates(self, provider: str) -> tuple[Profile, ...]:
        return self._broker.list_profiles(provider, session=self._session)

    def _look(self, provider: str) -> views.Candidates:
        try:
            return self._candidates(provider)
        except (errors.ProviderUnknown, errors.PolicyDenied) as error:
            return error


class AsyncModelSwitch(_Conversation):
    """The same for event loops: as ModelSwitch, on a broker of `equabot_client.aio`."""

    def __init__(
        self, broker: AsyncBroker, *, session: str, default: str, aliases: Mapping[str, str], strict: bool = False
    ) -> None:
        super().__init__(session=session, default=default, aliases=aliases, strict=strict)
        self._broker, self._lock = broker, asyncio.Lock()

    async def handle(self, text: str) -> Reply:
        """As ModelSwitch.handle."""
        command = parse(text)
        async with self._lock:
            if command.action is not Action.SWITCH:
                return self._show(command.action, {provider: await self._look(provider) for provider in self._providers()})
            model, provider = self._find(command)
            before = await self._candidates(provider)
            if command.profile:
                await self._broker.pin(self._session, provider, profile=profile_id(command.profile, before))
            else:
                await self._broker.unpin(self._session, provider)
            return self._switch(model, before, await self._candidates(provider))

    async def _candidates(self, provider: str) -> tuple[Profile, ...]:
        return await self._broker.list_profiles(provider, session=self._session)

    async def _look(self, provider: str) -> views.Candidates:
        try:
            return await self._candidates(provider)
        except (errors.ProviderUnknown, errors.PolicyDenied) as error:
            return error
