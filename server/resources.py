"""Resources: images as pictures, results as files, the taxonomy and the model cards as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.server.service import Service

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session


RESULT_FILES = (
    ("masks", "image/png", "8-bit mask, 0 or 255, of the segmented region in full-resolution pixels."),
    ("instances", "image/png", "16-bit labels, 0 background and 1..N objects."),
    ("objects", "application/geo+json", "Outlines as GeoJSON; opens in QuPath."),
    ("tables", "text/csv", "One row per object: position, size, shape, staining, texture."),
    ("explanations", "image/png", "The picture of an explanation in full size."),
    ("pictures", "image/png", "A heat map, a histogram or the densest 2 mm², as measure drew it."),
)
"""Folders of a result with one file per mask, explanation or drawing."""


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
            raise ResourceError(f"{error.code}: {error}") from error

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
        """The labels of one organ."""
        from tissuetalk.prompts.taxonomy import REGIONS, labels_of

        if organ.casefold() not in REGIONS:
            raise ResourceError(f"unknown_label: no organ {organ[:60]!r}; known: {', '.join(REGIONS)}.")
        return json.dumps([str(label) for label in labels_of(organ.casefold())], indent=1)

    @server.resource("taxonomy://label/{label}", mime_type="application/json")
    def one_label(label: str) -> str:
        """What a label means: the prompt it becomes and a plain-language card."""
        from tissuetalk.prompts.glossary import card_for
        from tissuetalk.prompts.taxonomy import Label, pathsegmentor_prompt

        try:
            parsed = Label.parse(label)
        except TissuetalkError as error:
            raise ResourceError(f"{error.code}: {error}") from error
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
