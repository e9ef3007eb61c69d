"""Kubernetes Secrets, watched through the API by a label selector, by name, or both.

The unit of an update is the Secret. Each name is a separate request with `fieldSelector=metadata.name=…`, the only form that
RBAC rules with `resourceNames` allow.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.backoff import delays
from equabot_broker.domain.material import ReadUnit, SourceEvent, SourceUnavailable, Unit, UnitChanged, UnitRemoved, UnitsListed
from equabot_broker.domain.remedies import LABEL
from equabot_broker.kube import watching
from equabot_broker.kube.api import KubeApi
from equabot_broker.ports import Clock
from equabot_broker.schema.key_readers import KUBE_NAME, PATH, TEXT
from equabot_broker.schema.reading import ConfigKey, Many, Section
from equabot_broker.sources._secret import KIND, read_secret
from equabot_broker.sources.declaration import SourceKind, SourceOptions

_PACE: Final = {"base": 0.5, "cap": 15.0}
_SAID_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """`selector` is a label selector, and `names` are names of Secrets. Secrets that match either of them are used.

    An empty `namespace` is that of the pod or of the kubeconfig's context. `kubeconfig` is absolute. None: the pod's service
    account.
    """

    selector: str = ""
    names: tuple[str, ...] = ()
    namespace: str = ""
    kubeconfig: Path | None = None

    @property
    def selected(self) -> str:
        """The selector in use. Empty: only names are used."""
        return self.selector or ("" if self.names else LABEL)

    @property
    def shown(self) -> str:
        """The source's name. Different options have different names."""
        selector = "" if self.selected == LABEL and not self.names else self.selected
        kubeconfig = str(self.kubeconfig or "")
        parts = {"namespace": self.namespace, "selector": selector, "names": ",".join(self.names), "kubeconfig": kubeconfig}
        return " ".join((KIND, *(f"{key}={value}" for key, value in parts.items() if value)))


class KubernetesSecrets:
    """The source `kubernetes`. Its units are the Secrets, by name.

    Secrets that the configuration names as the origin of a profile are also watched, by name. If one request fails, such as
    that of a forbidden name, only its Secrets fail. If all requests fail, the source is unavailable. `silence` is in seconds,
    see `kube.watching`.
    """

    def __init__(
        self, options: KubernetesOptions, *, rules: DiscoveryRules, clock: Clock, silence: float = watching.SILENCE
    ) -> None:
        self.name = options.shown
        self._options = options
        self._rules = rules
        self._clock = clock
        self._silence = silence
        bound = (place.unit for place in rules.bindings if place.kind == KIND)
        self._names = tuple(dict.fromkeys((*options.names, *bound)))
        self._feeds: list[_Feed] = []
        self._news: asyncio.Queue[_News] = asyncio.Queue()

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """The content of the Secrets, once every request was answered or failed. Then each change."""
        selector = self._options.selected
        self._feeds = [_Feed(f"selector {selector}", {"labelSelector": selector})] if selector else []
        self._feeds += [_Feed(name, {"fieldSelector": f"metadata.name={name}"}, name=name) for name in self._names]
        api = KubeApi(kubeconfig=self._options.kubeconfig)
        try:
            while True:
                async with aclosing(self._round(api)) as events:
                    async for event in events:
                        yield event
        finally:
            await api.close()

    def reread(self) -> None:
        """Lists everything again."""
        self._news.put_nowait(None)

    async def _round(self, api: KubeApi) -> AsyncGenerator[SourceEvent, None]:
        """The events from one listing of everything until a caller asks for the next. A listing in progress is completed."""
        news = self._news = asyncio.Queue()
        asked = False
        for feed in self._feeds:
            feed.answered = False
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._follow(api, feed, news), name=f"{self.name}: {feed.label}") for feed in self._feeds
            ]
            try:
                while not (asked and self._answered):
                    match await news.get():
                        case None:
                            asked = True
                        case (feed, reported) if (event := self._take(feed, reported)) is not None:
                            yield event
            except GeneratorExit:
                return  # the listener has left; the task group would treat this as a failure
            finally:
                for task in tasks:
                    task.cancel()

    async def _follow(self, api: KubeApi, feed: "_Feed", news: "asyncio.Queue[_News]") -> None:
        def namespace() -> str:
            return f"/api/v1/namespaces/{self._options.namespace or api.namespace}"

        followed = watching.Watching(
            api,
            lambda: f"{namespace()}/secrets",
            params=feed.params,
            pace=watching.WatchPace(
                delays=partial(delays, **_PACE, rng=random.random), sleep=self._clock.sleep, chance=random.random
            ),
            # The broker's own namespace exists, because the broker runs in it.
            within=lambda: namespace() if self._options.namespace not in ("", api.namespace) else "",
            silence=self._silence,
        )
        async with aclosing(followed.events()) as events:
            async for event in events:
                news.put_nowait((feed, event))

    @property
    def _answered(self) -> bool:
        return all(feed.answered for feed in self._feeds)

    def _take(self, feed: "_Feed", news: watching.WatchEvent) -> SourceEvent | None:
        """The event to report. None until every request was answered."""
        was = self._answered
        event = self._apply(feed, news)
        if was or not self._answered:
            return event if was else None
        return self._whole()

    def _apply(self, feed: "_Feed", news: watching.WatchEvent) -> SourceEvent | None:
        match news:
            case watching.ObjectsListed(objects):
                found = {str(thing["metadata"]["name"]): thing for thing in objects}
                feed.found = {
                    name: read_secret(thing, rules=self._rules, source=self.name)
                    for name, thing in found.items()
                    if self._concerns(feed, name)
                }
                feed.fault, feed.answered = "", True
                return self._whole()
            case watching.WatchLost(fault):
                news_of_it = feed.fault != str(fault)
                feed.fault, feed.answered = str(fault), True
                return self._whole() if news_of_it else None
            case watching.ObjectPut(thing) if self._concerns(feed, name := str(thing["metadata"]["name"])):
                before, after = feed.found.get(name), read_secret(thing, rules=self._rules, source=self.name)
                feed.found[name] = after
                if before == after:
                    return None
                return UnitChanged(after) if isinstance(after, Unit) else self._whole()
            case watching.ObjectDeleted(name) if feed.found.pop(name, None) is not None:
                return UnitRemoved(name)
        return None

    def _concerns(self, feed: "_Feed", name: str) -> bool:
        return feed.name == name or (not feed.name and name not in self._names)

    def _whole(self) -> SourceEvent:
        if all(feed.fault for feed in self._feeds):
            faults = list(dict.fromkeys(feed.fault for feed in self._feeds))
            more = f"; and {len(faults) - _SAID_MAX} more" if len(faults) > _SAID_MAX else ""
            return SourceUnavailable("; ".join(faults[:_SAID_MAX]) + more)
        units: list[Unit] = []
        failed: dict[str, str] = {}
        for feed in self._feeds:
            if feed.fault:
                failed |= dict.fromkeys(feed.found or (feed.label,), feed.fault)
                continue
            units += (found for found in feed.found.values() if isinstance(found, Unit))
            failed |= {name: found for name, found in feed.found.items() if isinstance(found, str)}
        return UnitsListed(tuple(units), failed)


@dataclass(slots=True, eq=False)
class _Feed:
    """One request and the Secrets that it found. `label` describes it to a person. `name` is the Secret that it watches; empty
    for a selector."""

    label: str
    params: Mapping[str, str]
    name: str = ""
    found: dict[str, ReadUnit] = field(default_factory=dict)
    fault: str = ""
    answered: bool = False


_News = tuple[_Feed, watching.WatchEvent] | None
"""An event of a feed. None: a caller asks for everything again."""


def kubernetes_options(options: SourceOptions) -> KubernetesOptions:
    """The options of such a source."""
    return KubernetesOptions(**options)


def _in_secret(*, secret: str, key: str) -> tuple[str, str]:
    return secret, key


KUBERNETES: Final = SourceKind(
    name=KIND,
    means="Secrets of Kubernetes, watched through the API.",
    keys={
        "selector": ConfigKey(
            TEXT,
            "The labels of the Secrets that are watched.",
            default="equabot.dev/credential=true; with names, none",
            example='"equabot.dev/credential=true"',
        ),
        "namespace": ConfigKey(
            KUBE_NAME,
            "The namespace of the Secrets.",
            default="the pod's own, or that of the kubeconfig",
            example="agents",
        ),
        "names": ConfigKey(
            Many(KUBE_NAME, some=True), "Secrets by name, each with a separate request.", default="none", example="[llm]"
        ),
        "kubeconfig": ConfigKey(
            PATH,
            "The kubeconfig with which the broker reaches the API server.",
            default="the pod's own service account",
            example="~/.kube/config",
        ),
    },
    location=ConfigKey(
        Section(
            _in_secret,
            {
                "secret": ConfigKey(KUBE_NAME, "The name of the Secret.", default="required", example="llm"),
                "key": ConfigKey(TEXT, "The key of its data.", default="required", example="ANTHROPIC_API_KEY"),
            },
            needs=("secret", "key"),
        ),
        "A key of a Kubernetes Secret.",
    ),
    build=lambda options, context: KubernetesSecrets(kubernetes_options(options), rules=context.rules, clock=context.clock),
    usual=False,
)
