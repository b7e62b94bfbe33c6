"""What hosts are given besides tools: what assistants are told, prompts, completions, and resources to read.

The wording lives in prompts/templates. Resources are images as pictures, results as files, the taxonomy and model cards as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from pydantic import Field

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.server.protocol import readable
from tissuetalk.server.service import Service
from tissuetalk.tools.answers.arguments import LONGEST_PATH, LONGEST_WORDS
from tissuetalk.tools.export import FORMATS
from tissuetalk.tools.measure.metrics import described

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session

MOST_COMPLETIONS = 50
_SLOT = re.compile(r"\{(\w+)\}")
RESULT_FILES = (
    ("masks", "image/png", "8-bit mask, 0 or 255, of the segmented region in full-resolution pixels."),
    ("instances", "image/png", "16-bit labels, 0 background and 1..N objects."),
    ("objects", "application/geo+json", "Outlines as GeoJSON; opens in QuPath."),
    ("tables", "text/csv", "One row per object: position, size, shape, staining, texture."),
    ("explanations", "image/png", "The picture of an explanation in full size."),
    ("pictures", "image/png", "A heat map, a histogram or the densest 2 mm², as measure drew it."),
)
"""Folders of a result with one file per mask, explanation or drawing."""


@cache
def text(name: str) -> str:
    """A template file, without its final newline."""
    return files("tissuetalk.prompts").joinpath("templates", name).read_text("utf-8").strip()


def tool_description(name: str) -> str:
    """What an assistant reads about a tool; lists of choices come from the tables that hold them."""
    formats = "; ".join(f"{format} ({entry.summary})" for format, entry in FORMATS.items())
    return text(f"tool_{name}.txt").replace("{metrics}", described()).replace("{formats}", formats)


def add_prompts(server: MCPServer) -> None:
    """The three language uses of the source paper (spec pathsegmentor.md, section 11)."""

    @server.prompt(name="report", title="Show a report's findings on the image")
    def report(
        image: Annotated[str, Field(max_length=LONGEST_PATH, description="Path or image:// URI")],
        report: Annotated[str, Field(max_length=LONGEST_WORDS, description="The report's text")],
    ) -> str:
        """Segment every finding a pathology report states, and say what it rules out."""
        return _filled("prompt_report.txt", image=image, report=report)

    @server.prompt(name="targeted", title="Find exactly what is asked for")
    def targeted(
        image: Annotated[str, Field(max_length=LONGEST_PATH, description="Path or image:// URI")],
        request: Annotated[
            str, Field(max_length=LONGEST_WORDS, description="What to find, in your own words")
        ],
    ) -> str:
        """Segment one or a few named structures, with points, boxes and numbers where asked."""
        return _filled("prompt_targeted.txt", image=image, request=request)

    @server.prompt(name="exploratory", title="Explain what can be seen")
    def exploratory(
        image: Annotated[str, Field(max_length=LONGEST_PATH, description="Path or image:// URI")],
        organ: Annotated[str, Field(max_length=100, description="Organ, if known")] = "",
        question: Annotated[
            str, Field(max_length=LONGEST_WORDS, description="The open question")
        ] = "What can be seen here?",
    ) -> str:
        """Walk a non-expert through the structures of an image."""
        clause = f" of {organ}" if organ else ""
        argument = f' and organ="{organ}"' if organ else ""
        return _filled(
            "prompt_exploratory.txt",
            image=image,
            organ_clause=clause,
            organ_argument=argument,
            question=question,
        )


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


def add_resources(server: MCPServer, service: Service) -> None:
    """result://, image://, taxonomy:// and model://, named as in the product's contract."""
    _add_files(server, service)
    _add_taxonomy(server)
    _add_models(server)


def _add_files(server: MCPServer, service: Service) -> None:
    async def read(work: Callable[[Session], bytes]) -> bytes:
        try:
            return await service.call(work, None)
        except TissuetalkError as error:
            raise ResourceError(readable(error, "library")) from error

    @server.resource("result://{result_id}/overlay.png", mime_type="image/png")
    async def overlay(result_id: str) -> bytes:
        """The segmented region with the outlines of every mask that was found."""
        return await read(lambda session: session.file(result_id, "overlay.png"))

    @server.resource("result://{result_id}/result.json", mime_type="application/json")
    async def result(result_id: str) -> str:
        """The structured answer of segment, as it was given."""
        return (await read(lambda session: session.file(result_id, "result.json"))).decode()

    @server.resource("image://{image_id}", mime_type="image/jpeg")
    async def image(image_id: str) -> bytes:
        """A view of an image that was seen before, at most 1024 px."""
        return await read(lambda session: session.view(f"image://{image_id}").picture or b"")

    def add(kind: str, media: str, what: str) -> None:
        @server.resource(
            f"result://{{result_id}}/{kind}/{{name}}", name=kind, mime_type=media, description=what
        )
        async def file(result_id: str, name: str) -> bytes | str:
            content = await read(lambda session: session.file(result_id, f"{kind}/{name}"))
            return content if media == "image/png" else content.decode()

    for kind, media, what in RESULT_FILES:
        add(kind, media, what)


def _add_taxonomy(server: MCPServer) -> None:
    @server.resource("taxonomy://labels", mime_type="application/json")
    def labels() -> str:
        """The 160 canonical labels by organ: region-structure-type."""
        from tissuetalk.prompts.taxonomy import REGIONS, labels_of

        return json.dumps(
            {region: [str(label) for label in labels_of(region)] for region in REGIONS}, indent=1
        )

    @server.resource("taxonomy://labels/{organ}", mime_type="application/json")
    def labels_in(organ: str) -> str:
        """The labels of one organ, of one structure (tissue, cell, nuclei) or of one object type."""
        from tissuetalk.prompts.taxonomy import REGIONS, labels_with

        if not (found := labels_with(organ)):
            raise ResourceError(
                f"unknown_label: no organ, structure or object type {organ[:60]!r}; organs: {', '.join(REGIONS)}."
            )
        return json.dumps([str(label) for label in found], indent=1)

    @server.resource("taxonomy://label/{label}", mime_type="application/json")
    def one_label(label: str) -> str:
        """What a label means: the prompt it becomes and a plain-language card."""
        from tissuetalk.prompts.glossary import card_for
        from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt

        try:
            parsed = Label.parse(label)
        except TissuetalkError as error:
            raise ResourceError(readable(error, "library")) from error
        meaning = asdict(card_for(parsed))
        return json.dumps(
            {"label": str(parsed), "prompt": pathsegmentor_prompt(parsed), "meaning": meaning}, indent=1
        )


def _add_models(server: MCPServer) -> None:
    @server.resource("model://models", mime_type="application/json")
    def models() -> str:
        """Every model by name: what it may be asked for, licence, metrics, and why it cannot be used here, if so."""
        from tissuetalk.tools.doctor import model_list

        return json.dumps(model_list(), indent=1)

    @server.resource("model://classifiers", mime_type="application/json")
    def classifiers() -> str:
        """Diagnosis classifiers that explain can look into: classes, encoder, what they were trained on, metrics."""
        from tissuetalk.models.classifiers.card import classifiers as known

        return json.dumps({name: asdict(card) for name, card in known().items()}, indent=1, default=str)

    @server.resource("model://{name}", mime_type="application/json")
    def model(name: str) -> str:
        """One model's card."""
        from tissuetalk.tools.doctor import model_list

        cards = {card["name"]: card for card in model_list()}
        if name not in cards:
            raise ResourceError(
                f"model_unavailable: no model is called {name[:60]!r}; known: {', '.join(cards)}."
            )
        return json.dumps(cards[name], indent=1)
