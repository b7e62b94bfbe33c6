"""Train a slide classifier on a folder of labelled slides: ``tissuetalk train RECIPE.yaml --out DIR``.

Both presets write the classifier (``.safetensors`` and ``.json``), ``split.json`` and ``metrics.json``. ``diagnosis`` adds
``predictions.csv`` and, with objects in the recipe, ``importance.json`` (and ``occlusion.json``); ``diagnosis-objects``, whose classifier is called
``NAME-objects``, adds ``objects.json``: what each object adds to each class on tested slides. What is read from slides is
kept below the folder (``features``, ``objects``), so that a run that stopped goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tissuetalk.models import registry
from tissuetalk.models.classifiers.activation_maps import object_map
from tissuetalk.models.classifiers.bags import SegmentedBag, SourceBag
from tissuetalk.models.classifiers.card import ClassifierCard
from tissuetalk.models.classifiers.classifier import Classifier
from tissuetalk.models.classifiers.cohort import (
    CohortTraining,
    GatheredSlides,
    PromptOf,
    Report,
    SeedRun,
    stored_tensors,
    write_json,
)
from tissuetalk.models.classifiers.encoder import encode_bag
from tissuetalk.models.classifiers.importance import BagImportance, bag_importance, by_class
from tissuetalk.models.classifiers.networks import AttentionMIL, ObjectAwareModel
from tissuetalk.models.classifiers.objects import ObjectBag, read_objects, with_other
from tissuetalk.models.classifiers.occlusion import OnObject, found_by_occlusion
from tissuetalk.models.classifiers.recipe import CohortRecipe, Slide
from tissuetalk.models.classifiers.training import train_attention, train_objects
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.images import ImageSource, open_image
from tissuetalk.models.segmenter import Segmenter, encoder_of
from tissuetalk.models.writing import CsvWriter, whole_file


class PatchTraining(CohortTraining[Tensor, AttentionMIL]):
    """The standard classifier on patch vectors."""

    done, trainer = "encoded", staticmethod(train_attention)

    def trained_on(self, size: str) -> str:
        return f"A cohort of {size}, {'all' if self.recipe.folds else 'seven in ten'} of them to train on."

    def read(self, source: ImageSource) -> Tensor | None:
        recipe = self.recipe
        rule = f"{recipe.tissue}-{recipe.patch_um}-{recipe.patch_px}-{recipe.mpp}-{recipe.feature}"
        # all that decides the vectors: with another recipe or encoder they are other files
        key = f"{source.sha256[:24]}-{self.encoder.weights_sha256[:12]}-{rule}"

        def make() -> dict[str, Tensor] | None:
            if (boxes := self.boxes(source)) is None:
                return None
            vectors = encode_bag(self.encoder, SourceBag(source, boxes), recipe.feature)
            return {"vectors": vectors.contiguous()}

        found = stored_tensors(self.out / "features" / f"{key}.safetensors", make)
        return found["vectors"] if found and len(found["vectors"]) >= recipe.least_patches else None

    def write_evidence(
        self, cohort: GatheredSlides[Tensor], run: SeedRun[AttentionMIL], card: ClassifierCard
    ) -> None:
        table = self.out / "predictions.csv"
        with whole_file(table) as part, part.open("w", encoding="utf-8", newline="") as lines:
            writer = CsvWriter(lines, line_end="\r\n")
            writer.row(["slide", "patient", "class", *card.classes])
            for i, shares in zip(run.tested, self.shares(cohort, run), strict=True):
                slide = cohort.slides[i]
                told = [f"{share:.4f}" for share in shares]
                writer.row([slide.name, slide.group, card.classes[slide.label], *told])
        if self.recipe.objects:
            # slides the network did not learn from, as far as there are any
            rows = run.tested if self.recipe.folds else [*run.split.validation, *run.split.test]
            classifier = Classifier(card, run.final, self.encoder)
            slides = [cohort.slides[i] for i in rows]
            self._write_importance(classifier, slides, self.recipe.sigma_px, "importance.json")
            for sigma in self.recipe.further_sigmas_px:
                self._write_importance(classifier, slides, sigma, f"importance-sigma-{sigma:g}.json")
            if self.recipe.occlusions:
                self._write_occlusions(classifier, slides)

    def _write_occlusions(self, classifier: Classifier, slides: Sequence[Slide]) -> None:
        """How well maps that know no objects find each object, by class."""
        recipe, segmenter = self.recipe, registry.load(self.recipe.segmenter)
        labels, unknown = self.known_objects(segmenter, "the maps leave out")
        found: list[OnObject] = []
        for slide, bag in self._bags(slides, segmenter, labels, "other maps of"):
            found += found_by_occlusion(
                classifier, bag, recipe.occlusions, label=slide.label, patches=recipe.occlusion_patches
            )
        classes = classifier.card.classes
        kinds = sorted({(each.method, each.name, each.label) for each in found})
        objects = []
        for method, name, label in kinds:
            areas = [
                each.found for each in found if (each.method, each.name, each.label) == (method, name, label)
            ]
            told = {"method": method, "name": name, "class": classes[label]}
            objects.append(told | {"found": float(np.mean(areas)), "patches": len(areas)})
        write_json(self.out / "occlusion.json", {"objects": objects, "not_looked_for": unknown})

    def _bags(
        self, slides: Sequence[Slide], segmenter: Segmenter, labels: Sequence[str], doing: str
    ) -> Iterator[tuple[Slide, SegmentedBag]]:
        """Each slide, open until the next is asked for, with its objects; none where no object is known. doing: told as it goes."""
        for number, slide in enumerate(slides if labels else (), start=1):
            with open_image(slide.path, name=slide.path.name) as source:
                yield slide, self.segmented(source, segmenter, labels)
            self.report(f"{doing} {number} of {len(slides)} slides")

    def _write_importance(
        self, classifier: Classifier, slides: Sequence[Slide], sigma_px: float, name: str
    ) -> None:
        """Object by class with all three aggregates, the control and the sigma."""
        recipe, segmenter = self.recipe, registry.load(self.recipe.segmenter)
        labels, unknown = self.known_objects(segmenter, "importance leaves out")
        found: list[BagImportance] = []
        for slide, bag in self._bags(slides, segmenter, labels, "importance on"):
            found.append(
                bag_importance(classifier, bag, label=slide.label, sigma_px=sigma_px, draws=recipe.draws)
            )
        classes = classifier.card.classes
        objects = [
            asdict(row) | {"class": "all" if row.label is None else classes[row.label]}
            for row in by_class(found)
        ]
        content = {
            "sigma_px_of_0.25_um": found[0].sigma_px if found else None,
            "slides": len(found),
            "objects": objects,
            "not_looked_for": unknown,
        }
        write_json(self.out / name, content)


class ObjectTraining(CohortTraining[ObjectBag, ObjectAwareModel]):
    """The object-aware classifier on objects that are segmented in every patch.

    Raises InvalidArgumentError for a recipe without objects that the segmenter knows.
    """

    every, done, trainer = 20, "segmented and pooled", staticmethod(train_objects)

    def __init__(self, recipe: CohortRecipe, out: Path, prompt_of: PromptOf, report: Report) -> None:
        self.segmenter = registry.load(recipe.segmenter)
        super().__init__(recipe, out, prompt_of, report)
        self.known, self.unknown = self.known_objects(self.segmenter, "these count as other")
        if not self.known:
            raise InvalidArgumentError(
                f"{self.segmenter.card.name} knows none of the recipe's objects ({', '.join(self.unknown) or 'it names none'});"
                " list canonical labels under `objects`, or name another `segmenter`."
            )

    def card_entries(self) -> dict[str, Any]:
        return {
            "name": f"{self.recipe.name}-objects",
            "kind": "object-aware",
            "feature": "tokens",
            "objects": tuple(self.known),
            "summary": f"{self.recipe.summary} Object-aware: tells what each object adds.".strip(),
        }

    def trained_on(self, size: str) -> str:
        who = f"{self.segmenter.card.name} ({self.segmenter.weights_sha256[:12]})"
        return f"{size}. Objects segmented by {who}."

    def read(self, source: ImageSource) -> ObjectBag | None:
        recipe, objects = self.recipe, with_other(self.known)
        rule = f"{recipe.tissue}-{recipe.patch_um}-{recipe.patch_px}-{recipe.mpp}-{'/'.join(objects)}"
        # the sentence is part of it: asked in another one, the segmenter outlines something else
        asked = "/".join(self.prompt_of(label).text for label in self.known)
        key = f"{source.sha256}-{self.encoder.weights_sha256}-{self.segmenter.weights_sha256}-{rule}-{asked}"
        key += encoder_of(self.segmenter)

        def make() -> dict[str, Tensor] | None:
            if self.boxes(source) is None:
                return None
            bag = read_objects(self.encoder, self.segmented(source, self.segmenter, self.known), objects)
            return {"features": torch.from_numpy(bag.features), "coverage": torch.from_numpy(bag.coverage)}

        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        found = stored_tensors(self.out / "objects" / f"{name}.safetensors", make)
        if found is None:
            return None
        return ObjectBag(objects, found["features"].numpy(), found["coverage"].numpy())

    def write_evidence(
        self, cohort: GatheredSlides[ObjectBag], run: SeedRun[ObjectAwareModel], card: ClassifierCard
    ) -> None:
        """For every class: objects by their mean activation for it, on the tested slides that are of it."""
        values: dict[tuple[int, str], list[tuple[float, float, int]]] = {}
        for model, rows in run.parts:
            for i in rows:
                label = cohort.slides[i].label
                for share in object_map(model, cohort.bags[i], label).ranking:
                    if share.patches:
                        row = (share.activation, share.area_fraction, share.rank)
                        values.setdefault((label, share.name), []).append(row)
        table = []
        for (label, name), found in values.items():
            activation, area, rank = np.mean(found, axis=0).tolist()
            told = {"class": card.classes[label], "name": name, "mean_activation": activation}
            told |= {"mean_rank": rank, "mean_area_fraction": area, "slides": len(found)}
            table.append((label, -activation, told))
        objects = [told for *_, told in sorted(table, key=lambda entry: entry[:2])]
        write_json(self.out / "objects.json", {"objects": objects, "not_looked_for": self.unknown})


def train_cohort(
    recipe: CohortRecipe, out: Path, *, prompt_of: PromptOf, report: Report = print
) -> ClassifierCard:
    """The whole run of either preset. Raises InvalidArgumentError for slides or objects that do not allow it."""
    if recipe.preset == "diagnosis-objects":
        return ObjectTraining(recipe, out, prompt_of, report).run()
    return PatchTraining(recipe, out, prompt_of, report).run()
