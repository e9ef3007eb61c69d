"""An agent that knows nothing of brokers: the vendors' packages, set up by the environment alone.

Says what it got, as JSON; then waits, holding all of it, until its standard input ends.
"""

import asyncio
import json
import sys
from typing import Any

import anthropic
import openai

ASKED: Any = [{"role": "user", "content": "hi"}]


def with_anthropic() -> dict[str, Any]:
    client = anthropic.Anthropic()
    plain = client.messages.create(model="claude", max_tokens=9, messages=ASKED)
    with client.messages.stream(model="claude", max_tokens=9, messages=ASKED) as stream:
        streamed = list(stream.text_stream)
    counted = client.messages.count_tokens(model="claude", messages=ASKED).input_tokens
    listed = [model.id for model in client.models.list()]
    return {"plain": plain.content[0].to_dict()["text"], "streamed": streamed, "counted": counted, "models": listed}


def with_openai() -> dict[str, Any]:
    client = openai.OpenAI()
    plain = client.chat.completions.create(model="gpt", messages=ASKED).choices[0].message.content
    chunks = client.chat.completions.create(model="gpt", messages=ASKED, stream=True)
    streamed = [chunk.choices[0].delta.content for chunk in chunks]
    answered = client.responses.create(model="gpt", input="hi").output_text
    events = [event.type for event in client.responses.create(model="gpt", input="hi", stream=True)]
    listed = [model.id for model in client.models.list()]
    return {"plain": plain, "streamed": streamed, "response": answered, "events": events[-1], "models": listed}


async def without_waiting() -> dict[str, Any]:
    async with anthropic.AsyncAnthropic() as claude, openai.AsyncOpenAI() as gpt:
        one, other = await asyncio.gather(
            claude.messages.create(model="claude", max_tokens=9, messages=ASKED),
            gpt.chat.completions.create(model="gpt", messages=ASKED),
        )
        async with claude.messages.stream(model="claude", max_tokens=9, messages=ASKED) as stream:
            streamed = [text async for text in stream.text_stream]
    return {"plain": [one.content[0].to_dict()["text"], other.choices[0].message.content], "streamed": streamed}


print(json.dumps([with_anthropic(), with_openai(), asyncio.run(without_waiting())]), flush=True)
sys.stdin.read()
