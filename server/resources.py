"""Resources: images as pictures, results as files, the taxonomy and the model cards as text."""

from __future__ import annotations

import json
from dataclasses import asdict

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError

from tissuetalk.models.errors import TissuetalkError
from tissuetalk.server.background import Background
from tissuetalk.server.lazy import LazyDesk


def add_resources(server: MCPServer, lazy: LazyDesk, background: Background) -> None:
    """result://, image://, taxonomy:// and model://, named as in the product's contract."""
    _add_files(server, lazy, background)
    _add_taxonomy(server)
    _add_models(server)


def _add_files(server: MCPServer, lazy: LazyDesk, background: Background) -> None:
    async def file(result_id: str, path: str) -> bytes:
        try:
            return await background.run(lambda progress, stop: lazy.desk().file(result_id, path), None)
        except TissuetalkError as error:
            raise ResourceError(f"{error.code}: {error}") from error

    @server.resource("result://{result_id}/overlay.png", mime_type="image/png")
    async def overlay(result_id: str) -> bytes:
        """The segmented region with the outlines of every mask that was found."""
        return await file(result_id, "overlay.png")

    @server.resource("result://{result_id}/result.json", mime_type="application/json")
    async def result(result_id: str) -> str:
        """The structured answer of segment, as it was given."""
        return (await file(result_id, "result.json")).decode()

    @server.resource("result://{result_id}/explanations/{name}", mime_type="image/png")
    async def explanation(result_id: str, name: str) -> bytes:
        """The picture of an explanation in full size."""
        return await file(result_id, f"explanations/{name}")

    @server.resource("result://{result_id}/masks/{name}", mime_type="image/png")
    async def mask(result_id: str, name: str) -> bytes:
        """8-bit mask, 0 or 255, of the segmented region in full-resolution pixels."""
        return await file(result_id, f"masks/{name}")

    @server.resource("result://{result_id}/instances/{name}", mime_type="image/png")
    async def instances(result_id: str, name: str) -> bytes:
        """16-bit labels, 0 background and 1..N objects."""
        return await file(result_id, f"instances/{name}")

    @server.resource("result://{result_id}/objects/{name}", mime_type="application/geo+json")
    async def objects(result_id: str, name: str) -> str:
        """Outlines as GeoJSON; opens in QuPath."""
        return (await file(result_id, f"objects/{name}")).decode()

    @server.resource("result://{result_id}/tables/{name}", mime_type="text/csv")
    async def table(result_id: str, name: str) -> str:
        """One row per object: position, size, shape, staining, texture."""
        return (await file(result_id, f"tables/{name}")).decode()

    @server.resource("result://{result_id}/pictures/{name}", mime_type="image/png")
    async def picture(result_id: str, name: str) -> bytes:
        """A heat map, a histogram or the densest 2 mm², as measure drew it."""
        return await file(result_id, f"pictures/{name}")

    @server.resource("image://{image_id}", mime_type="image/jpeg")
    async def image(image_id: str) -> bytes:
        """A view of an image that was seen before, at most 1024 px."""
        try:
            answer = await background.run(
                lambda progress, stop: lazy.desk().view(f"image://{image_id}"), None
            )
        except TissuetalkError as error:
            raise ResourceError(f"{error.code}: {error}") from error
        return answer.picture or b""


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
        from tissuetalk.tools.models import model_list

        return json.dumps(model_list(), indent=1)

    @server.resource("model://classifiers", mime_type="application/json")
    def classifiers() -> str:
        """Diagnosis classifiers that explain can look into: classes, encoder, what they were trained on, metrics."""
        from tissuetalk.models.classifiers.classifier import classifiers as known

        return json.dumps({name: asdict(card) for name, card in known().items()}, indent=1, default=str)

    @server.resource("model://{name}", mime_type="application/json")
    def model(name: str) -> str:
        """One model's card."""
        from tissuetalk.tools.models import model_list

        cards = {card["name"]: card for card in model_list()}
        if name not in cards:
            raise ResourceError(
                f"model_unavailable: no model is called {name[:60]!r}; known: {', '.join(cards)}."
            )
        return json.dumps(cards[name], indent=1)
