"""A chat assistant as host: some of the conversations of `python -m benchmarks conversations`, and the example as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from openai_server import Scripted, openai_server

from benchmarks.conversations import Heard, conversations, hold, served, wrong

CHECKOUT = Path(__file__).parents[1]
HELD = (
    "a colon report with a denied finding",
    "a report read wrongly is corrected with targets",
    "a misspelt file",
    "what is asked for cannot be done",
)


def test_there_are_forty_conversations_of_the_three_uses() -> None:
    uses = [conversation.use for conversation in conversations()]
    assert len(uses) == 40 and {"report", "request", "lay"} == set(uses)
    assert len({conversation.name for conversation in conversations()}) == 40


@pytest.mark.anyio
async def test_an_assistant_that_follows_the_instructions_is_steered_right() -> None:
    by_name = {conversation.name: conversation for conversation in conversations()}
    async with served(over_http=False) as client:
        for name in HELD:
            assert await hold(by_name[name], client) == [], name


def test_a_painted_denial_would_be_noticed() -> None:
    mask = {
        "found": True,
        "target": "tumour",
        "label": None,
        "free_form": "tumour",
        "evidence": "No tumour",
        "count": 1,
    }
    answer = {"masks": [mask], "not_segmented": [], "warnings": []}
    heard = Heard([("segment", {}, answer, "tumour: found")], "There is a tumour.")
    expect = {
        "never": ["tumour"],
        "left": {"absent": ["tumour"]},
        "tools": ["segment"],
        "unsaid": ["there is"],
    }
    assert wrong(expect, heard) == [
        "tumour was painted",
        "tumour is not listed as absent",
        "'there is' was said",
    ]


def test_the_example_answers_a_question_with_any_openai_compatible_model() -> None:
    asked = {"image": "colon.jpg", "words": "glands", "mpp": 1.2}
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "segment", "arguments": json.dumps(asked)},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    completion = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
    with openai_server([Scripted(body=json.dumps(completion)), "Ten glands."]) as model:
        environment = os.environ | {
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "none",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        command = [
            sys.executable,
            "examples/agent.py",
            "models/samples",
            "m",
            "How many glands are in colon.jpg?",
        ]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Ten glands."
    system, _, _, told = model.asked[-1]["messages"]
    assert "Research use only" in system["content"]
    # on a busy machine the answer is a job to wait for
    assert any(words in str(told["content"]) for words in ("11 objects", "Call job("))
    assert {tool["function"]["name"] for tool in model.asked[0]["tools"]} >= {"segment", "measure", "explain"}
