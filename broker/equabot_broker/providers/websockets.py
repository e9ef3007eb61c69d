"""The WebSocket paths of vendors, from their documentation, among the requests that agents may send.

A WebSocket on any other path is refused: the effect of an undocumented upgrade is not known, and the broker cannot see the
messages.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from equabot_broker.routing.request_rules import rule

_PATHS: Final = {
    "openai": "/realtime /responses",
    "openai-codex": "/codex/responses",
    "google": """
        /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent
        /ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent
    """,
    "github-copilot": "/responses",
    "vercel-ai-gateway": "/responses",
    "microsoft-foundry": "/openai/v1/realtime /openai/realtime /openai/v1/responses",
    "deepgram": "/v1/listen /v1/speak /v2/listen",
    "xai": "/realtime /responses /tts /stt",
    "mistral": "/audio/transcriptions/realtime",
    "together": "/realtime /audio/speech/websocket",
    "litellm": "/realtime /v1/realtime /responses /v1/responses",
    "elevenlabs": """
        /v1/text-to-speech/{voice}/stream-input /v1/text-to-speech/{voice}/multi-stream-input /v1/speech-to-text/realtime
    """,
}

BY_PROVIDER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {provider: tuple(rule(f"GET {path}") for path in paths.split()) for provider, paths in _PATHS.items()}
)
"""The rules by provider id. Paths are relative to the vendor's `base_url`."""
