"""The requests that agents may send to each vendor through the gateway, by API reference: one list of rules per vendor.

A list has the requests of a model's work: messages, responses, completions, embeddings, reranking, images, audio, video,
files, batches, moderation, models (to read), search and scraping. It does not have requests that create, list, show or change
credentials, sessions, members, billing, settings, permissions, deployments or training jobs, nor requests that contain other
requests. Rules have no star, so that a vendor's new path is refused until a person reads its reference and adds it. Paths are
relative to the vendor's `base_url`; a vendor with several roots has whole paths.
"""

from typing import Final

from equabot_broker.routing.request_rules import prefixed, rule

_Rules = tuple[str, ...]


def _list(text: str) -> _Rules:
    """Each line has methods, then paths: `GET DELETE /one /two` is four rules."""
    made = []
    for words in map(str.split, text.strip().splitlines()):
        methods = [word for word in words if not word.startswith("/")]
        made += [rule(f"{method} {path}") for path in words[len(methods) :] for method in methods]
    return tuple(made)


# fmt: off

# -- shared forms ------------------------------------------------------------------------------------------------------

_MODELS: Final = _list("GET /models /models/{model}")
_CHAT: Final = (*_list("POST /chat/completions"), *_MODELS)
_COMPLETIONS: Final = _list("POST /completions")
_EMBEDDINGS: Final = _list("POST /embeddings")
_RERANK: Final = _list("POST /rerank")
_MESSAGES: Final = _list("POST /messages /messages/count_tokens")
_RESPONSES: Final = _list("""
    POST GET /responses
    GET DELETE /responses/{response}
    POST /responses/{response}/cancel /responses/compact /responses/input_tokens
    GET /responses/{response}/input_items
""")
"""`GET /responses` opens a WebSocket."""
_IMAGES: Final = _list("POST /images/generations /images/edits /images/variations")
_SPEECH: Final = _list("POST /audio/speech")
_TRANSCRIPTIONS: Final = _list("POST /audio/transcriptions /audio/translations")
_FILES: Final = _list("""
    POST GET /files
    GET DELETE /files/{file}
    GET /files/{file}/content
""")
_BATCHES: Final = _list("""
    POST GET /batches
    GET /batches/{batch}
    POST /batches/{batch}/cancel
""")
_VIDEOS: Final = _list("""
    POST GET /videos
    GET DELETE /videos/{video}
    GET /videos/{video}/content
""")
_REALTIME: Final = _list("GET /realtime")
"""A WebSocket that accepts the key itself. The path that issues a secret for a browser is another one, and is not allowed."""
_OPENAI_FORM: Final = (
    *_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_RESPONSES, *_IMAGES, *_SPEECH, *_TRANSCRIPTIONS, *_FILES, *_BATCHES,
    *_list("POST /moderations"), *_REALTIME,
)
_GEMINI_FORM: Final = _list("""
    POST /models/{model}:generateContent /models/{model}:streamGenerateContent /models/{model}:countTokens
    POST /models/{model}:embedContent /models/{model}:batchEmbedContents
""")

# -- vendors with their own API ----------------------------------------------------------------------------------------

ANTHROPIC: Final = prefixed("/v1", (*_MESSAGES, *_MODELS, *_FILES, *_list("""
    POST GET /messages/batches
    GET DELETE /messages/batches/{batch}
    POST /messages/batches/{batch}/cancel
    GET /messages/batches/{batch}/results
    POST GET /skills /skills/{skill}/versions
    GET DELETE /skills/{skill} /skills/{skill}/versions/{version}
    GET /skills/{skill}/versions/{version}/content
    POST /complete
    POST GET /agents /environments /sessions /memory_stores
    POST GET /agents/{agent}
    GET /agents/{agent}/versions
    POST GET DELETE /environments/{environment} /sessions/{session} /memory_stores/{store}
    POST /agents/{agent}/archive /environments/{environment}/archive /sessions/{session}/archive /memory_stores/{store}/archive
    POST GET /sessions/{session}/events /sessions/{session}/resources
    GET /sessions/{session}/events/stream /sessions/{session}/threads /sessions/{session}/threads/{thread}
    POST GET DELETE /sessions/{session}/resources/{resource}
    POST /sessions/{session}/threads/{thread}/archive
    GET /sessions/{session}/threads/{thread}/events /sessions/{session}/threads/{thread}/stream
    POST GET /memory_stores/{store}/memories
    POST GET DELETE /memory_stores/{store}/memories/{memory}
    GET /memory_stores/{store}/memory_versions /memory_stores/{store}/memory_versions/{version}
    POST /memory_stores/{store}/memory_versions/{version}/redact
""")))
# A session here is the run of an agent. Not allowed: vaults and tunnels, which have credentials; deployments and user
# profiles, which act for other people; `/environments/{environment}/work`, which a worker calls with its own key; assistants
# and threads, which the vendor has ended; fine-tuning and evaluations, which are jobs of a person.
OPENAI: Final = (*_OPENAI_FORM, *_list("""
    GET /chat/completions /chat/completions/{completion}/messages
    GET POST DELETE /chat/completions/{completion}
    POST /conversations
    GET POST DELETE /conversations/{conversation}
    GET POST /conversations/{conversation}/items
    GET DELETE /conversations/{conversation}/items/{item}
    POST /uploads /uploads/{upload}/parts /uploads/{upload}/complete /uploads/{upload}/cancel
    POST GET /vector_stores /vector_stores/{store}/files
    GET POST DELETE /vector_stores/{store} /vector_stores/{store}/files/{file}
    GET /vector_stores/{store}/files/{file}/content
    POST /vector_stores/{store}/search
    POST /vector_stores/{store}/file_batches /vector_stores/{store}/file_batches/{batch}/cancel
    GET /vector_stores/{store}/file_batches/{batch} /vector_stores/{store}/file_batches/{batch}/files
    POST GET /containers /containers/{container}/files
    GET DELETE /containers/{container} /containers/{container}/files/{file}
    GET /containers/{container}/files/{file}/content
    POST /videos/{video}/remix
"""), *_VIDEOS)
OPENAI_CODEX: Final = _list("""
    POST GET /codex/responses
    POST /codex/responses/compact /codex/memories/trace_summarize
    GET /codex/models
""")
"""The same API has all other functions of an account, which are not allowed."""
OPENROUTER: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_MESSAGES, *_RERANK, *_SPEECH, *_list("""
    POST /responses /audio/transcriptions
    GET /models/count /models/{author}/{model}/endpoints /endpoints/zdr /embeddings/models /providers /generation
    POST /videos
    GET /videos/models /videos/{job} /videos/{job}/content
"""))
# A batch of this list has requests to its model only; `/batch` can have any requests, and is not allowed.
_GOOGLE: Final = (*_MODELS, *_GEMINI_FORM, *prefixed("/openai", (*_CHAT, *_EMBEDDINGS, *_IMAGES)), *_list("""
    POST /models/{model}:predict /models/{model}:predictLongRunning
    POST /models/{model}:batchGenerateContent /models/{model}:asyncBatchEmbedContent
    GET /models/{model}/operations/{operation}
    GET /batches
    GET DELETE /batches/{batch}
    POST /batches/{batch}:cancel
    POST GET /files
    GET DELETE /files/{file}
    GET /files/{file}:download
    POST GET /cachedContents
    GET PATCH DELETE /cachedContents/{content}
    POST GET /fileSearchStores
    GET DELETE /fileSearchStores/{store}
    POST /fileSearchStores/{store}:importFile
    GET /fileSearchStores/{store}/documents
    GET DELETE /fileSearchStores/{store}/documents/{document}
    GET /fileSearchStores/{store}/operations/{operation} /fileSearchStores/{store}/upload/operations/{operation}
    POST /interactions /interactions/{interaction}/cancel
    GET DELETE /interactions/{interaction}
"""))
_GOOGLE_MEDIA: Final = _list("""
    POST PUT /upload/v1beta/files /upload/v1beta/fileSearchStores/{store}:uploadToFileSearchStore
    GET /download/v1beta/files/{file}:download
    GET /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent
    GET /ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent
""")
GOOGLE: Final = (
    *prefixed("/v1beta", _GOOGLE),
    *prefixed("/v1alpha", _GOOGLE),
    *prefixed("/v1", (*_MODELS, *_GEMINI_FORM)),
    *_GOOGLE_MEDIA,
)
GITHUB_COPILOT: Final = (*_CHAT, *_EMBEDDINGS, *prefixed("/v1", _MESSAGES), *_list("""
    POST GET /responses
    POST /responses/compact
"""))
"""Without `/mcp`, which is all of GitHub, and `/models/session`, which issues a token."""
_AZURE_DEPLOYMENT: Final = prefixed("/openai/deployments/{deployment}", (
    *_list("POST /chat/completions"), *_COMPLETIONS, *_EMBEDDINGS, *_IMAGES, *_SPEECH, *_TRANSCRIPTIONS,
))
MICROSOFT_FOUNDRY: Final = (
    *_AZURE_DEPLOYMENT,
    *prefixed("/openai/v1", (*_OPENAI_FORM, *_VIDEOS)),
    *prefixed("/openai", (*_MODELS, *_RESPONSES, *_FILES, *_BATCHES, *_REALTIME)),
    *prefixed("/anthropic/v1", _MESSAGES),
    *_list("""
        GET /models/info
        POST /models/chat/completions /models/embeddings /models/images/embeddings
        POST /providers/cohere/v2/rerank /providers/mistral/azure/ocr
    """),
)
DEEPGRAM: Final = _list("""
    POST GET /v1/listen /v1/speak
    GET /v2/listen /v1/models /v1/models/{model}
    POST /v1/read
""")
XAI: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_MESSAGES, *_RESPONSES, *_FILES, *_REALTIME, *_list("""
    POST /images/generations /images/edits
    POST /videos/generations /videos/edits /videos/extensions
    GET /videos/{request} /chat/deferred-completion/{request}
    POST GET /tts /stt
    GET /tts/voices
    POST /documents/search /tokenize-text
    GET /language-models /language-models/{model} /embedding-models /embedding-models/{model}
    GET /image-generation-models /image-generation-models/{model}
    GET /video-generation-models /video-generation-models/{model}
    POST GET /batches /batches/{batch}/requests
    GET /batches/{batch} /batches/{batch}/results
"""))
MINIMAX: Final = (*_CHAT, *_list("""
    POST /text/chatcompletion_v2 /responses
    POST /t2a_v2 /t2a_async_v2 /get_voice /voice_design /voice_clone
    POST /image_generation /video_generation /music_generation /lyrics_generation
    GET /query/t2a_async_query_v2 /query/video_generation
    POST /files/upload /files/delete
    GET /files/list /files/retrieve /files/retrieve_content
    POST /coding_plan/search /coding_plan/vlm
"""))
VENICE: Final = (*_CHAT, *_EMBEDDINGS, *_SPEECH, *_list("""
    POST /responses /audio/transcriptions
    GET /models/traits /models/compatibility_mapping
    POST /audio/quote /audio/queue /audio/retrieve /audio/complete
    POST /video/quote /video/queue /video/retrieve /video/complete
    POST /image/generate /image/edit /image/multi-edit /image/upscale /image/background-remove
    GET /image/styles
    POST /images/generations
    POST /augment/search /augment/scrape /augment/text-parser
    GET /characters /characters/{character} /characters/{character}/reviews
"""))
# Without `/files/{file}/url`, which is signed and needs no key.
MISTRAL: Final = (*_CHAT, *_EMBEDDINGS, *_SPEECH, *_FILES, *_list("""
    POST /fim/completions /agents/completions
    POST /moderations /chat/moderations /classifications /chat/classifications
    POST /ocr /audio/transcriptions
    GET /audio/transcriptions/realtime /audio/voices
    POST GET /conversations
    GET POST DELETE /conversations/{conversation}
    GET /conversations/{conversation}/history /conversations/{conversation}/messages
    POST /conversations/{conversation}/restart
    POST GET /batch/jobs
    GET /batch/jobs/{job}
    POST /batch/jobs/{job}/cancel
"""))
DEEPSEEK: Final = (
    *_CHAT, *_COMPLETIONS, *prefixed("/v1", (*_CHAT, *_COMPLETIONS)), *prefixed("/beta", (*_CHAT, *_COMPLETIONS)),
    *prefixed("/anthropic/v1", _MESSAGES),
)
FIREWORKS: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_RERANK, *_MESSAGES, *_RESPONSES, *_list("""
    POST /workflows/accounts/fireworks/models/{model}
    POST /workflows/accounts/fireworks/models/{model}/text_to_image
    POST /workflows/accounts/fireworks/models/{model}/get_result
"""))
"""The vendor's models are named `accounts/fireworks/models/…`: models of the customer's account are not allowed."""
TOGETHER: Final = (
    *_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_RERANK, *_SPEECH, *_TRANSCRIPTIONS, *_FILES, *_BATCHES, *_REALTIME,
    *_list("""
        POST /images/generations /files/upload /videos
        GET /videos/{video} /voices /audio/speech/websocket
    """),
)
PERPLEXITY: Final = (*_CHAT, *_list("""
    POST /search /responses /embeddings /contextualizedembeddings
    POST GET /async/chat/completions
    GET /async/chat/completions/{request}
    POST /v1/chat/completions /v1/agent /v1/embeddings /v1/contextualizedembeddings /v1/responses /v1/sonar
    GET /v1/models /v1/responses/{response}
    POST GET /v1/async/sonar
    GET /v1/async/sonar/{request}
"""))
_LITELLM_FORM: Final = (*_OPENAI_FORM, *_RERANK, *_MESSAGES)
LITELLM: Final = (
    *_LITELLM_FORM,
    *prefixed("/v1", _LITELLM_FORM),
    *prefixed("/v2", _RERANK),
    *_AZURE_DEPLOYMENT,
    *prefixed("/v1beta", _GEMINI_FORM),
    *_GEMINI_FORM,
)
"""A self-hosted proxy, often with the key that creates all others."""
VOYAGE: Final = (
    *_EMBEDDINGS, *_RERANK, *_FILES, *_BATCHES, *_list("POST /multimodalembeddings /contextualizedembeddings"),
)

# -- vendors with OpenAI's form ----------------------------------------------------------------------------------------

ZAI: Final = (*_CHAT, *_EMBEDDINGS, *_RERANK, *_SPEECH, *_FILES, *_list("""
    POST /images/generations /async/images/generations /videos/generations /audio/transcriptions
    GET /async-result/{task}
    POST /moderations /tokenizer /web_search /reader /layout_parsing
"""))
OPENCODE: Final = (*_CHAT, *_MESSAGES, *_list("POST /responses"), *_GEMINI_FORM)
QWEN_PORTAL: Final = _CHAT
VERCEL_AI_GATEWAY: Final = (
    *_CHAT, *_EMBEDDINGS, *_RERANK, *_MESSAGES, *_RESPONSES, *_IMAGES, *_list("GET /models/{creator}/{model}/endpoints"),
)
KIMI_CODE: Final = (*_CHAT, *_MESSAGES, *_FILES, *_list("POST /search /fetch"))
HUGGINGFACE: Final = (*_CHAT, *_EMBEDDINGS, *_RESPONSES)
CHUTES: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS)
GROQ: Final = (*_CHAT, *_EMBEDDINGS, *_RESPONSES, *_SPEECH, *_TRANSCRIPTIONS, *_FILES, *_BATCHES)
CEREBRAS: Final = (*_CHAT, *_COMPLETIONS, *_FILES, *_BATCHES)
MOONSHOT: Final = (*_CHAT, *_COMPLETIONS, *_FILES, *_BATCHES, *_list("POST /tokenizers/estimate-token-count"))
SYNTHETIC: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_list("POST /responses"))
NVIDIA: Final = (*_CHAT, *_COMPLETIONS, *_EMBEDDINGS, *_list("POST /responses"))

# -- search and scraping -----------------------------------------------------------------------------------------------

EXA: Final = _list("""
    POST /search /contents /findSimilar /answer /context /chat/completions
    POST GET /research/v1
    GET /research/v1/{research}
""")
TAVILY: Final = _list("""
    POST /search /extract /crawl /map /research
    GET /research/{request}
""")
_FIRECRAWL: Final = _list("""
    POST /scrape /search /map /crawl /crawl/params-preview /batch/scrape
    POST /extract /agent /deep-research /llmstxt
    GET /crawl/active /crawl/{job}/errors /batch/scrape/{job}/errors
    GET /extract/{job} /deep-research/{job} /llmstxt/{job}
    GET DELETE /crawl/{job} /batch/scrape/{job} /agent/{job}
""")
FIRECRAWL: Final = (*prefixed("/v2", _FIRECRAWL), *prefixed("/v1", _FIRECRAWL))
BRAVE: Final = prefixed("/res/v1", _list("""
    GET POST /web/search /news/search /llm/context
    GET /images/search /videos/search /suggest/search /spellcheck/search
    GET /local/place_search /local/pois /local/descriptions
    GET /summarizer/search /summarizer/summary /summarizer/title /summarizer/enrichments
    GET /summarizer/followups /summarizer/entity_info
    POST /chat/completions
"""))

# -- speech ------------------------------------------------------------------------------------------------------------

ELEVENLABS: Final = (*_list("GET /v2/voices"), *prefixed("/v1", _list("""
    GET /models /voices /voices/{voice} /shared-voices
    POST /text-to-speech/{voice} /text-to-speech/{voice}/stream
    POST /text-to-speech/{voice}/with-timestamps /text-to-speech/{voice}/stream/with-timestamps
    GET /text-to-speech/{voice}/stream-input /text-to-speech/{voice}/multi-stream-input
    POST /text-to-dialogue /text-to-dialogue/stream
    POST /text-to-dialogue/with-timestamps /text-to-dialogue/stream/with-timestamps
    POST /text-to-voice/design /text-to-voice/create-previews
    POST /speech-to-speech/{voice} /speech-to-speech/{voice}/stream
    POST /speech-to-text
    GET /speech-to-text/realtime
    GET DELETE /speech-to-text/transcripts/{transcript}
    POST /forced-alignment /audio-isolation /audio-isolation/stream /sound-generation
    POST /music /music/stream /music/detailed /music/plan
    POST /dubbing
    GET DELETE /dubbing/{dubbing}
    GET /dubbing/{dubbing}/audio/{language} /dubbing/{dubbing}/transcript/{language}
""")))
"""Without the agents of `/v1/convai`, which issue tokens and signed addresses, and without an account's history."""
