"""Models that a request's path names."""

import pytest

from equabot_broker.routing.model_names import model_of


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "gemini-2.5-flash"),
        ("/v1beta/tunedModels/mine-1:generateContent", "mine-1"),
        ("/openai/deployments/gpt-4o/chat/completions", "gpt-4o"),
        ("/model/anthropic.claude-sonnet-4-20250514-v1%3A0/converse", "anthropic.claude-sonnet-4-20250514-v1:0"),
        ("/v1beta/models/gemini-2.5-pro%3AgenerateContent", "gemini-2.5-pro"),
        ("/v1/messages", ""),
        ("/v1/models", ""),
        ("/v1/models/gpt-5", ""),
        ("/v1beta/models/a%20b:generateContent", ""),
        ("/v1beta/models/sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789:generateContent", ""),
        (f"/v1beta/models/{'x' * 200}:generateContent", ""),
        ("/v1beta/models/:generateContent", ""),
    ],
)
def test_the_model_in_a_path(path: str, model: str) -> None:
    """P18: where the vendor's URLs hold it; and nothing that could be anything else."""
    assert model_of(path) == model
