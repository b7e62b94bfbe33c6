"""What an assistant is told: server instructions, tool descriptions, prompts for the three uses, completions.

The wording lives in prompts/templates.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Annotated

from mcp.server import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from pydantic import Field

from tissuetalk.tools.export import FORMATS
from tissuetalk.tools.measure.metrics import described

MOST_COMPLETIONS = 50
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def text(name: str) -> str:
    """A template file, without its final newline."""
    return resources.files("tissuetalk.prompts").joinpath("templates", name).read_text("utf-8").strip()


def tool_description(name: str) -> str:
    """What an assistant reads about a tool; lists of choices come from the tables that hold them."""
    formats = "; ".join(f"{format} ({entry.summary})" for format, entry in FORMATS.items())
    return text(f"tool_{name}.txt").replace("{metrics}", described()).replace("{formats}", formats)


def instructions() -> str:
    return text("server_instructions.txt")


def add_prompts(server: MCPServer) -> None:
    """The three language uses of the source paper (spec pathsegmentor.md, section 11)."""

    @server.prompt(name="report", title="Show a report's findings on the image")
    def report(
        image: Annotated[str, Field(description="Path or image:// URI")],
        report: Annotated[str, Field(description="The report's text")],
    ) -> str:
        """Segment every finding a pathology report states, and say what it rules out."""
        return _filled("prompt_report.txt", image=image, report=report)

    @server.prompt(name="targeted", title="Find exactly what is asked for")
    def targeted(
        image: Annotated[str, Field(description="Path or image:// URI")],
        request: Annotated[str, Field(description="What to find, in your own words")],
    ) -> str:
        """Segment one or a few named structures, with points, boxes and numbers where asked."""
        return _filled("prompt_targeted.txt", image=image, request=request)

    @server.prompt(name="exploratory", title="Explain what can be seen")
    def exploratory(
        image: Annotated[str, Field(description="Path or image:// URI")],
        organ: Annotated[str, Field(description="Organ, if known")] = "",
        question: Annotated[str, Field(description="The open question")] = "What can be seen here?",
    ) -> str:
        """Walk a non-expert through the structures of an image."""
        clause = f" of {organ}" if organ else ""
        return _filled("prompt_exploratory.txt", image=image, organ_clause=clause, question=question)


def _filled(template: str, **values: str) -> str:
    """One pass over the template, so that braces inside a value stay what they are."""
    return _SLOT.sub(lambda slot: values[slot.group(1)], text(template))


def add_completions(server: MCPServer) -> None:
    """Labels for anything called label, organs for anything called organ."""

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK left this one untyped
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        from tissuetalk.prompts.taxonomy import LABELS, REGIONS

        known = {"label": [str(label) for label in LABELS], "organ": list(REGIONS), "region": list(REGIONS)}
        if argument.name not in known:
            return None
        said = argument.value.casefold()
        begins = [name for name in known[argument.name] if name.startswith(said)]
        matching = begins + [name for name in known[argument.name] if said in name and name not in begins]
        return Completion(
            values=matching[:MOST_COMPLETIONS], total=len(matching), has_more=len(matching) > MOST_COMPLETIONS
        )
