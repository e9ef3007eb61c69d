"""Makes a unit of credentials from a Kubernetes Secret, as the API returns it. Its values are decoded from base64 here."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Texts
from equabot_broker.discovery.hygiene import ENTRIES_MAX
from equabot_broker.discovery.unknown_names import notes, unknown_names
from equabot_broker.domain.masking import masked
from equabot_broker.domain.material import ReadUnit, SourceFault
from equabot_broker.files.reading import Unreadable
from equabot_broker.formats.annotations import PROFILE, PROVIDER, keys_after_end, read_annotations
from equabot_broker.formats.bundles import FILES, bundle_unit
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.sources._variables import parse_dotenv, with_doubts
from equabot_broker.telemetry.incidents import incident

KIND: Final = "kubernetes"

_DOTENV: Final = ".env"


def read_secret(thing: Mapping[str, Any], *, rules: DiscoveryRules, source: str) -> ReadUnit:
    """The unit of a Secret with a `metadata.name`, or the reason why it cannot be read. The Secret may have any type.

    Keys that are no credentials are ignored. A Secret without a credential has a fault.
    """
    name = str(thing["metadata"]["name"])
    where = f"Secret {thing['metadata'].get('namespace', '')}/{name}"
    try:
        annotations = _strings(thing["metadata"].get("annotations"), where)
        data, declared = _strings(thing.get("data"), where), _declared(annotations)
        texts, origins, doubts = _texts(data, rules, name, where, declared=declared)
        unit = bundle_unit(
            texts, rules=rules, kind=KIND, source=source, unit=name, name=name, origin=origins.__getitem__,
            annotations=annotations,
            said=read_annotations(
                annotations, catalog=rules.catalog, where=where, newer=keys_after_end(thing["metadata"].get("managedFields"))
            ),
        )  # fmt: skip
    except (Malformed, Unreadable) as fault:
        return str(fault)
    except Exception as error:  # noqa: BLE001 - a port: the other Secrets serve
        return f"{where} cannot be read: {incident('source', where, error)}"
    unit = with_doubts(unit, doubts, shown=f"{where} {_DOTENV}", source=source)
    if not declared:
        unknown = unknown_names({**data, **texts}, rules, kind=KIND, unit=name)
        unit = replace(unit, notes=notes(unknown, rules.catalog, where=lambda key: f"{where} {key}"))
    if unit.profiles or unit.faults:
        return unit
    nothing = (
        f"{where} holds no credential: name a key like the provider's environment variable (OPENAI_API_KEY), or set the"
        f" annotation {PROVIDER}"
    )
    return replace(unit, faults=(SourceFault(where, nothing),))


def _texts(
    data: Mapping[str, str], rules: DiscoveryRules, name: str, where: str, *, declared: bool
) -> tuple[Texts, Mapping[str, str], tuple[str, ...]]:
    """The values that may be credentials, the origin of each, and the doubts about its `.env`. In a Secret that declares its
    provider, any value may be a credential."""
    texts: dict[str, bytes | str] = {}
    origins: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    if _DOTENV in data:
        raw = _decoded(data[_DOTENV], f"{where} {_DOTENV}")
        found = parse_dotenv(raw, shown=f"{where} {_DOTENV}", wants=lambda key: rules.wants(key, kind=KIND, unit=name))
        texts, doubts = dict(found.values), found.doubts
        origins |= {key: f"{where} {_DOTENV} {key}" for key in texts}
    wanted = [key for key in data.keys() - {_DOTENV} if declared or key in FILES or rules.wants(key, kind=KIND, unit=name)]
    if len(wanted) > ENTRIES_MAX:
        raise Malformed(f"{where} holds more than {ENTRIES_MAX:,} keys: move some of them to a Secret of their own")
    for key in sorted(wanted):
        origins[key] = f"{where} {masked(key)}"
        texts[key] = _decoded(data[key], origins[key])
    return texts, origins, doubts


def _declared(annotations: Mapping[str, str]) -> bool:
    return PROVIDER in annotations or ":" in annotations.get(PROFILE, "")


def _strings(value: Any, where: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    raise Malformed(f"{where} does not have the form of a Secret of the Kubernetes API")


def _decoded(value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{where} is not base64, which the data of a Secret must be") from None
