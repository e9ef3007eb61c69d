"""Readers of single values, which the tables of keys share."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from equabot_broker.domain.provider import Mode
from equabot_broker.schema import values
from equabot_broker.schema.reading import Text

T = TypeVar("T")


def any_or(parse: Callable[[str], T], written: str) -> T | str:
    """`*`, or a value that `parse` reads."""
    return written if written == "*" else parse(written)


TEXT: Final = Text(values.text)
PATH: Final = Text(values.path)
SOCKET: Final = Text(values.socket)
URL: Final = Text(values.url)
DURATION: Final = Text(values.duration)
SPAN: Final = Text(values.span)
ADDRESS: Final = Text(values.address)
BOOLEAN: Final = Text(values.boolean)
COUNT: Final = Text(values.count)
MODEL: Final = Text(values.model)
VARIABLE: Final = Text(values.variable)
KUBE_NAME: Final = Text(values.kube_name)
HOURS: Final = Text(values.hours)
PROVIDER: Final = Text(values.provider)
PROFILE: Final = Text(values.profile)
MODE: Final = Text(partial(values.one_of, Mode))
