"""How long a prompt is, where nobody counted."""

from __future__ import annotations

import json

CHARACTERS = 4.0  # a token, about


def guess_tokens(body: bytes) -> float:
    """Prompt tokens of a request in OpenAI's form, by its characters; of anything else by its size."""
    try:
        told = json.loads(body)
    except ValueError:
        return max(len(body) / CHARACTERS, 1.0)
    if not isinstance(told, dict):
        return max(len(body) / CHARACTERS, 1.0)
    prompt, messages = told.get("prompt"), told.get("messages")
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return float(len(prompt))  # tokens already
    characters = len(prompt) if isinstance(prompt, str) else 0
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        characters += len(content) if isinstance(content, str) else len(json.dumps(content)) if content else 0
    return max(characters / CHARACTERS, 1.0)
