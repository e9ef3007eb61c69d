"""The names of models, where a request's path says one."""

import re
from typing import Final
from urllib.parse import unquote

from equabot_broker.domain.masking import is_misplaced_key

_IN_PATH: Final = re.compile(
    r"/(?:models|tunedModels)/([^/]{1,256}?)(?::|%3[Aa])[A-Za-z]{1,32}\Z|/(?:deployments|model)/([^/]{1,256})/"
)
"""Gemini's and Vertex's `models/X:verb`, Azure's `deployments/X/…`, Bedrock's `model/X/…`."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")


def model_of(path: str) -> str:
    """The model that a request's path names, as Gemini's `/models/X:generateContent` does; empty: it names none, or nothing
    that can be a model's name."""
    found = _IN_PATH.search(path)
    name = unquote(found[1] or found[2]) if found else ""
    return name if _NAME.fullmatch(name) and not is_misplaced_key(name) else ""
