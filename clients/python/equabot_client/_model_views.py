"""What a chat shows of models and of the profiles behind them: plain text, nothing secret. Pure."""

from collections.abc import Mapping, Sequence

from equabot_client._lease import Profile
from equabot_client._model_names import provider_of
from equabot_client.errors import EquabotError

Candidates = Sequence[Profile] | EquabotError
"""A provider's candidates in the order they would be tried, or why there are none to be seen."""

Listed = Mapping[str, Sequence[str]]
"""Models, each with its aliases."""


def picker(listed: Listed, current: str, found: Mapping[str, Candidates]) -> str:
    """A numbered line a model, with the profile that would serve it."""
    lines = [f"Model: {current}"]
    for number, (model, aliases) in enumerate(listed.items(), start=1):
        mark = " <- current" if model == current else ""
        lines.append(f"{number}. {_named(model, aliases)}: {serving(found[provider_of(model)])}{mark}")
    return "\n".join([*lines, "/model <number or name>, with @<profile> to pin one; /model status for more"])


def status(listed: Listed, current: str, found: Mapping[str, Candidates]) -> str:
    """The current model, and each provider with its address, its models and its candidates, as the broker ranks them."""
    blocks = [switched(current, listed[current], found[provider_of(current)])]
    for provider, candidates in found.items():
        models = [_named(model, aliases) for model, aliases in listed.items() if provider_of(model) == provider]
        lines = [f"{provider}{_address(candidates)}: {', '.join(models)}"]
        if isinstance(candidates, EquabotError):
            lines.append(f"   {candidates}")
        else:
            lines += [f"{number}. {_candidate(each)}" for number, each in enumerate(candidates, start=1)] or ["   no profiles"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def switched(model: str, aliases: Sequence[str], candidates: Candidates) -> str:
    """The model in effect and the profile that would serve it."""
    return f"Model: {_named(model, aliases)}\nProfile: {serving(candidates)}"


def serving(candidates: Candidates) -> str:
    """The profile that a request would get now, and what became of the pinned one."""
    if isinstance(candidates, EquabotError):
        return f"none: {candidates}"
    chosen = next((each.id for each in candidates if each.next), "none is usable")
    pinned = next((each for each in candidates if each.pinned), None)
    if pinned is None:
        return chosen
    if pinned.next:
        return f"{chosen} (pinned)"
    return f"{chosen}; pinned: {pinned.id} ({pinned.reason or pinned.state})"


def pinned_id(candidates: Sequence[Profile]) -> str:
    """The id of the pinned one among them; empty: none is."""
    return next((each.id for each in candidates if each.pinned), "")


def _named(model: str, aliases: Sequence[str]) -> str:
    return f"{model} ({', '.join(aliases)})" if aliases else model


def _address(candidates: Candidates) -> str:
    url = "" if isinstance(candidates, EquabotError) else next((each.base_url for each in candidates), "")
    return f" at {url}" if url else ""


def _candidate(profile: Profile) -> str:
    """The broker's reason is a sentence of its own that tells cooldowns, disables and ends, each with how long."""
    marks = [mark for mark, holds in (("next", profile.next), ("pinned", profile.pinned)) if holds]
    reason = [profile.reason] if profile.reason not in ("", profile.state) else []
    mode = f" ({profile.mode})" if profile.mode else ""  # what no source holds has none
    return f"{profile.id}{mode}: {', '.join([profile.state, *marks, *reason])}"
