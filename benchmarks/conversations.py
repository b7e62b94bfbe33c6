"""An assistant in the loop: forty conversations of the three uses, held through LangChain's agent over MCP, and checked.

`python -m benchmarks conversations [--http] [--only NAME]… [--model NAME]`: without --model a scripted assistant that follows
our instructions to the letter and understands what `conversations.yaml` says it understands; with it any model behind
OPENAI_BASE_URL, held to the same checks of what was called, found and said.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from mcp import Client
from mcp.client.stdio import stdio_client

from benchmarks.serving import http_client, over_stdio

HERE = Path(__file__).parents[1]
IMAGES = (HERE / "models" / "samples", HERE / "tests" / "data" / "images")
CALL = re.compile(r"\b(view|library|measure|segment|explain|job)\(([^()]*)\)")
ARGUMENT = re.compile(r"(\w+)=(?:'([^']*)'|\"([^\"]*)\"|(true|false))", re.IGNORECASE)
MOST_STEPS = 12
SEGMENTING = ("words", "targets", "points", "boxes", "region", "organ", "mpp", "model", "dry_run")


@dataclass(frozen=True)
class Turn:
    """What a user says. understands: what a person with the words and the picture in mind would take them for. expect: what must hold."""

    says: str
    understands: Mapping[str, Any]
    expect: Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    name: str
    use: str
    turns: tuple[Turn, ...]


@cache
def conversations() -> tuple[Conversation, ...]:
    rows = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return tuple(
        Conversation(
            row["name"],
            row["use"],
            tuple(Turn(turn["says"], turn.get("understands", {}), turn["expect"]) for turn in row["turns"]),
        )
        for row in rows
    )


class ScriptedAssistant(BaseChatModel):
    """Follows the server's instructions; understands what it is given with each turn and nothing else."""

    turns: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> ScriptedAssistant:  # type: ignore[override]
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        asked = [at for at, message in enumerate(messages) if isinstance(message, HumanMessage)]
        turn, past, now = self.turns[len(asked) - 1], messages[: asked[-1]], messages[asked[-1] + 1 :]
        step = next_step(turn.understands, past, now)
        if isinstance(step, str):
            message = AIMessage(step)
        else:
            call = {"name": step[0], "args": step[1], "id": f"call_{len(messages)}", "type": "tool_call"}
            message = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])


Step = tuple[str, dict[str, Any]] | str
"""A call of a tool, or what is said to the user."""


def next_step(known: Mapping[str, Any], past: Sequence[BaseMessage], now: Sequence[BaseMessage]) -> Step:
    """The assistant's next move. past: earlier turns; now: calls and answers since the user spoke."""
    plan = list(planned(known, past, now))
    done = [message for message in now if isinstance(message, ToolMessage)]
    calls = [call for message in now if isinstance(message, AIMessage) for call in message.tool_calls]
    if not done:
        return plan[0]
    if len(done) >= MOST_STEPS:
        return "I could not do this."
    last, call = done[-1], calls[-1]
    if last.status == "error":
        return after_error(known, last.text, call, calls)
    answer = last.artifact or {}
    if answer.get("job_id") and answer.get("state") not in ("done", "failed", "cancelled"):
        return "job", {"job_id": answer["job_id"], "action": "wait"}
    if call["name"] == "job":
        answer = answer.get("result") or {}
    if recovering := [other for other in calls if other["name"] != call["name"] and failed(other, now)]:
        # the call that the error named was made: now once more what was wanted, set right
        return recovering[-1]["name"], {**recovering[-1]["args"], **set_right(known, answer, recovering[-1])}
    if (correction := corrected(known, answer, calls)) is not None:
        return correction
    position = sum(1 for name, _ in plan if name in {each["name"] for each in calls})
    return plan[position] if position < len(plan) else reply(done)


def planned(
    known: Mapping[str, Any], past: Sequence[BaseMessage], now: Sequence[BaseMessage]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The calls that our instructions ask for, in their order."""
    result_id = latest([*past, *now], "result_id")
    if known.get("look"):
        yield "view", {"image": known["image"], "grid": True}
    if "image" in known:
        asked = {name: known[name] for name in SEGMENTING if name in known}
        yield "segment", {"image": known["image"], **asked}
    for verb in ("measure", "explain", "view", "library"):
        if verb in known:
            about = {} if verb == "library" and "result_id" not in known[verb] else {"result_id": result_id}
            yield verb, {**known[verb], **about}


def latest(messages: Sequence[BaseMessage], name: str) -> Any:
    answers = (message.artifact or {} for message in reversed(messages) if isinstance(message, ToolMessage))
    found = (answer.get(name) or (answer.get("result") or {}).get(name) for answer in answers)
    return next((value for value in found if value), None)


def failed(call: Mapping[str, Any], now: Sequence[BaseMessage]) -> bool:
    """Whether every try of that tool since the user spoke came back as an error."""
    states = [
        message.status for message in now if isinstance(message, ToolMessage) and message.name == call["name"]
    ]
    return bool(states) and set(states) == {"error"}


def after_error(
    known: Mapping[str, Any], text: str, call: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> Step:
    """An error says what to do next; the assistant does that, once, or the same again set right."""
    named = CALL.search(text)
    if named is not None and named[1] != call["name"]:
        arguments = {name: a or b or c == "true" for name, a, b, c in ARGUMENT.findall(named[2])}
        if named[1] == "view":
            arguments["image"] = call["args"].get("image")
        if (named[1], arguments) not in [(each["name"], each["args"]) for each in calls]:
            return named[1], arguments
    if known.get("then") and len(calls) < 3:
        return call["name"], {**call["args"], **known["then"]}
    return f"That did not work. {text}"


def set_right(known: Mapping[str, Any], answer: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    """What the assistant changes in a call that failed, now that it has seen what there is."""
    right = dict(known.get("then", {}))
    if answer.get("images") and "image" in call["args"]:
        paths = [image["path"] for image in answer["images"]]
        right["image"] = difflib.get_close_matches(call["args"]["image"], paths, 1, 0.0)[0]
    if answer.get("results") and "result_id" in call["args"]:
        right["result_id"] = answer["results"][0]["result_id"]
    return right


def corrected(
    known: Mapping[str, Any], answer: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> Step | None:
    """A report's lines compared with the report; what was read wrongly is asked again with targets."""
    findings: Mapping[str, str] = known.get("findings", {})
    if not findings or sum(call["name"] == "segment" for call in calls) > 1:
        return None
    read = [(line["finding"].casefold(), line["assertion"]) for line in answer.get("read_as", [])]
    alike = {
        name: {said for finding, said in read if name.casefold() in finding or finding in name.casefold()}
        for name in findings
    }
    if all(alike[name] == {assertion} for name, assertion in findings.items()):
        return None
    targets = [{"words": name, "assertion": assertion} for name, assertion in findings.items()]
    asked = next(call["args"] for call in calls if call["name"] == "segment")
    return "segment", {**asked, "targets": targets}


def reply(done: Sequence[ToolMessage]) -> str:
    """What the assistant passes on: the text of the last answer of every tool, which is written to be passed on."""
    texts = {message.name: message.text for message in done if message.status != "error"}
    return "\n".join(texts.values())


@dataclass
class Heard:
    """What one turn came to: calls with their answers, in order, and what was said at the end."""

    calls: list[tuple[str, dict[str, Any], dict[str, Any] | None, str]] = field(default_factory=list)
    said: str = ""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage]) -> Heard:
        heard = cls(said=messages[-1].text)
        given = {
            call["id"]: call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls
        }
        for message in messages:
            if isinstance(message, ToolMessage):
                call = given[message.tool_call_id]
                answer = message.artifact if message.status != "error" else None
                heard.calls.append((call["name"], call["args"], answer, message.text))
        return heard

    def last(self, tool: str) -> dict[str, Any]:
        """The tool's last answer; that of a job counts as the answer of what it did."""
        found: dict[str, Any] = {}
        for name, _, answer, _ in self.calls:
            done = answer is not None and name == "job" and answer.get("result")
            if answer is not None and (name == tool or done):
                found = answer["result"] if done else answer
        return found


def wrong(expect: Mapping[str, Any], heard: Heard) -> list[str]:
    """What does not hold, one sentence each."""
    answer = heard.last("segment")
    masks, left = answer.get("masks", []), answer.get("not_segmented", [])
    painted = [named(mask) for mask in masks if mask["found"]]
    looked = [named(mask) for mask in masks if not mask["found"]]
    tools = [name for name, *_ in heard.calls if name != "job"]
    problems = []
    if "tools" in expect and tools != expect["tools"]:
        problems.append(f"called {tools}, not {expect['tools']}")
    problems += [f"{name} was not found" for name in expect.get("found", ()) if not among(name, painted)]
    problems += [f"{name} was not looked for" for name in expect.get("looked", ()) if not among(name, looked)]
    problems += [f"{name} was painted" for name in expect.get("never", ()) if among(name, painted)]
    for code, names in expect.get("left", {}).items():
        stated = [named(item) for item in left if item["code"] == code]
        problems += [f"{name} is not listed as {code}" for name in names if not among(name, stated)]
    for name, (least, most) in expect.get("count", {}).items():
        counts = [mask["count"] for mask in masks if among(name, [named(mask)])]
        if len(counts) != 1 or not least <= (counts[0] or 0) <= most:
            problems.append(f"count of {name} is {counts}, not {least} to {most}")
    for metric, unit in expect.get("measured", {}).items():
        rows = [row for row in heard.last("measure").get("measurements", []) if row["metric"] == metric]
        if not rows or {row["unit"] for row in rows} != {unit}:
            problems.append(f"{metric} in {unit} was not measured: {[row['unit'] for row in rows]}")
    codes = [text.split(":", 1)[0] for _, _, given, text in heard.calls if given is None]
    if codes != expect.get("errors", []):
        problems.append(f"errors {codes}, not {expect.get('errors', [])}")
    warned = {warning["code"] for warning in answer.get("warnings", [])}
    problems += [f"no warning {code}" for code in expect.get("warned", ()) if code not in warned]
    said = heard.said.casefold()
    problems += [
        f"{words!r} was not said" for words in expect.get("says", ()) if words.casefold() not in said
    ]
    problems += [f"{words!r} was said" for words in expect.get("unsaid", ()) if words.casefold() in said]
    return problems


def named(item: Mapping[str, Any]) -> str:
    keys = ("target", "label", "free_form", "evidence")
    return " | ".join(str(item[key]) for key in keys if item.get(key)).casefold()


def among(name: str, stated: Sequence[str]) -> bool:
    return any(name.casefold() in each for each in stated)


async def hold(conversation: Conversation, client: Client, model: BaseChatModel | None = None) -> list[str]:
    """Everything that went wrong in it, with the turn."""
    from examples.agent import assistant  # LangChain's agent is an extra of its own

    agent = await assistant(model or ScriptedAssistant(turns=list(conversation.turns)), client)
    messages: list[BaseMessage] = []
    problems = []
    for number, turn in enumerate(conversation.turns, start=1):
        messages = [*messages, HumanMessage(turn.says)]
        before = len(messages)
        messages = (await agent.ainvoke({"messages": messages}, {"recursion_limit": 60}))["messages"]
        heard = Heard.of(messages[before:])
        problems += [f"turn {number}: {problem}" for problem in wrong(turn.expect, heard)]
    return problems


@asynccontextmanager
async def served(over_http: bool) -> AsyncIterator[Client]:
    """A client of a real server that has the bundled images."""
    with tempfile.TemporaryDirectory(prefix="conversations-") as folder:
        root = Path(folder) / "images"
        root.mkdir()
        for file in (file for images in IMAGES for file in images.iterdir() if file.suffix != ".md"):
            shutil.copy(file, root)
        if over_http:
            async with http_client(root, Path(folder) / "workspace") as client:
                yield client
        else:
            async with Client(stdio_client(over_stdio(root, Path(folder) / "workspace"))) as client:
                yield client


async def run(chosen: Sequence[Conversation], over_http: bool, model: BaseChatModel | None) -> int:
    failed = 0
    async with served(over_http) as client:
        for conversation in chosen:
            problems = await hold(conversation, client, model)
            failed += bool(problems)
            print(
                f"{'FAILED' if problems else 'passed'}  {conversation.use:8} {conversation.name}", flush=True
            )
            for problem in problems:
                print(f"        {problem}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} over {'HTTP' if over_http else 'stdio'}")
    return failed


def main(given: list[str]) -> None:
    ask = argparse.ArgumentParser(prog="python -m benchmarks conversations", description=__doc__)
    ask.add_argument("--http", action="store_true", help="over streamable HTTP; stdio by default")
    ask.add_argument("--only", action="append", default=[], metavar="NAME", help="a part of its name")
    ask.add_argument("--model", help="a model behind OPENAI_BASE_URL; the scripted assistant by default")
    options = ask.parse_args(given)
    model = None
    if options.model:
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model=options.model, temperature=0)
    chosen = [each for each in conversations() if all(part in each.name for part in options.only)]
    sys.exit(int(asyncio.run(run(chosen, options.http, model)) > 0))
