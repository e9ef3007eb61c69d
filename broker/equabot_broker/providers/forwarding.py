"""What a request to a provider may have in addition to the credential, as data: names of headers, query parameters and
WebSocket protocols.

The names are from the vendors' documentation and SDKs. A name with `*` at its end matches all names with that prefix, except
those that could have a credential (`routing.forwarding`). The catalog has the headers in which a request names an account.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_broker.domain.provider import Provider


class Forwarded(NamedTuple):
    """Parses names, separated by white space, in lower case."""

    headers: str = ""
    query: str = ""
    subprotocols: str = ""


COMMON: Final = Forwarded(
    """
    accept accept-charset accept-encoding accept-language cache-control content-disposition content-encoding content-language
    content-length content-md5 content-type date expect if-match if-modified-since if-none-match if-range if-unmodified-since
    pragma prefer range te user-agent
    connection transfer-encoding upgrade
    sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version
    idempotency-key x-idempotency-key traceparent tracestate x-client-request-id
    x-stainless-* anthropic-version anthropic-beta anthropic-dangerous-direct-browser-access openai-beta x-goog-api-client
    """,
    """
    after after_id alt api-version before before_id beta category count cursor direction end_date expand fields filter format
    from include include_obfuscation language limit model name offset order order_by page page_number page_size page_token
    pagesize pagetoken per_page purpose q query search skip sort sort_by sort_direction start_date starting_after status stream
    to type until
    """,
    "realtime openai-beta.realtime-v1 mcp",
)
"""Allowed for any provider: what HTTP and WebSockets need, and what common SDKs send to compatible APIs. `page_token` and
`pagetoken` name a page of a list."""

_APPLICATION: Final = "http-referer referer x-title"
"""Headers by which an application names itself to a gateway of models."""

BY_PROVIDER: Final[Mapping[str, Forwarded]] = MappingProxyType(
    {
        "anthropic": Forwarded("anthropic-client-* anthropic-user-profile-id x-app x-claude-*", "source scope_id"),
        "openai": Forwarded("openai-intent session_id conversation_id", "call_id intent run_id variant metadata role"),
        "openai-codex": Forwarded(
            "openai-intent originator version session-id session_id conversation-id conversation_id thread-id x-codex-*"
            " x-openai-subagent x-responsesapi-include-timing-metrics",
            "client_version task_filter",
        ),
        "openrouter": Forwarded(f"{_APPLICATION} x-openrouter-*", "id supported_parameters input_modalities output_modalities"),
        "google": Forwarded(
            "x-goog-request-params x-goog-fieldmask x-goog-upload-* x-server-timeout",
            "$alt enum-encoding $fields prettyprint updatemask uploadtype upload_id upload_protocol",
        ),
        "github-copilot": Forwarded(
            "copilot-integration-id copilot-vision-request editor-version editor-plugin-version openai-intent"
            " x-github-api-version x-initiator x-interaction-id x-interaction-type x-vscode-user-agent-library-version"
        ),
        "opencode": Forwarded("x-opencode-*"),
        "qwen-portal": Forwarded("x-dashscope-* x-dashscope-authtype"),
        "vercel-ai-gateway": Forwarded(
            f"{_APPLICATION} ai-model-id ai-language-model-* ai-embedding-model-* ai-image-model-* ai-gateway-*"
            " ai-gateway-auth-method"
        ),
        "kimi-code": Forwarded("x-msh-*"),
        "huggingface": Forwarded("x-use-cache x-wait-for-model"),
        "microsoft-foundry": Forwarded(
            "azureml-model-deployment extra-parameters openai-intent x-ms-client-request-id x-ms-return-client-request-id"
            " x-ms-useragent",
            "deployment intent call_id",
        ),
        "groq": Forwarded("groq-beta groq-model-version"),
        "deepgram": Forwarded(
            query="""
            alternatives bit_rate channels container custom_intent custom_intent_mode custom_topic custom_topic_mode
            detect_entities detect_language diarize diarize_version dictation encoding endpointing eager_eot_threshold
            eot_threshold eot_timeout_ms extra filler_words intents interim_results keyterm keywords measurements mip_opt_out
            multichannel no_delay numerals paragraphs profanity_filter punctuate redact replace sample_rate sentiment
            smart_format speed summarize tag tier topics utt_split utterance_end_ms utterances vad_events version
            """
        ),
        "cerebras": Forwarded("x-cerebras-*"),
        "xai": Forwarded("x-grok-*", "pagination_token"),
        "mistral": Forwarded("x-affinity"),
        "fireworks": Forwarded("x-fireworks-* x-session-affinity", "orderby readmask"),
        "together": Forwarded(query="dedicated"),
        "litellm": Forwarded(
            "x-litellm-timeout x-litellm-stream-timeout x-litellm-num-retries x-litellm-tags x-litellm-trace-id"
            " x-litellm-session-id x-litellm-spend-logs-metadata x-litellm-end-user-id"
        ),
        "nvidia": Forwarded("nvcf-poll-seconds nvcf-input-asset-references"),
        "exa": Forwarded("x-exa-integration"),
        "tavily": Forwarded("x-client-source"),
        "brave": Forwarded(
            "api-version x-loc-*",
            """
            country enable_rich_callback extra_snippets freshness goggles goggles_id ids include_fetch_metadata operators
            result_filter safesearch search_lang spellcheck summary text_decorations ui_lang units
            """,
        ),
        "elevenlabs": Forwarded(
            query="""
            agent_id apply_text_normalization audio_format auto_mode commit_strategy enable_logging enable_ssml_parsing
            include_timestamps inactivity_timeout language_code model_id next_page_token optimize_streaming_latency
            output_format seed show_legacy start_after_history_item_id sync_alignment vad_silence_threshold_secs
            vad_threshold voice_id voice_type
            """
        ),
    }
)
"""By provider id."""


def added(provider: Provider) -> Provider:
    """The provider with the names listed for it."""
    given = BY_PROVIDER.get(provider.id, Forwarded())
    headers, query, subprotocols = (tuple(names.split()) for names in given)
    return replace(provider, forward_headers=headers, query=query, subprotocols=subprotocols)
