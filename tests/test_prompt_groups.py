"""Prompt-group-aware training: its sentences, its losses around four hosts, and that what it saves answers in `segment`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tissuetalk.models.datasets.group_sentences import drawn_group, sentences, templates
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.segmentation import sam3
from tissuetalk.models.segmentation.pathsegmentor import base_segmenter
from tissuetalk.models.segmentation.vlsm import segmenter
from tissuetalk.models.segmenter import RGB, Prompt
from tissuetalk.models.training.group_data import GroupSampler, GroupSet, PromptGroup, pictures
from tissuetalk.models.training.groups import GroupsRecipe, divided_pictures, group_objective
from tissuetalk.models.training.hosts import HOSTS, GroupHost, Said, host_named
from tissuetalk.tools.train.recipes import run_recipe
from tissuetalk.tools.train.reproduce.drawn import draw_set

TYPES = ("breast-nuclei-neoplastic", "breast-nuclei-inflammatory")
WORDS = {"low": range(1, 5), "medium": range(5, 13), "high": range(13, 60)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups") / "pannuke"
    draw_set(folder, [(f"fold{f}_{n}", "train") for f in (1, 2, 3) for n in range(4)], TYPES, seed=1)
    return folder


def test_the_bank_has_twelve_sentences_a_level_that_keep_the_rules_of_their_level() -> None:
    for kind in ("all", "one"):
        every = [
            text for part in ("train", "test") for some in templates()[kind][part].values() for text in some
        ]
        assert len(set(every)) == len(every) == 36
        for part, count in (("train", 9), ("test", 3)):
            told = sentences(part, "nuclei", None if kind == "all" else "dead")  # type: ignore[arg-type]
            for level, some in told.items():
                assert len(some) == count
                assert all(len(text.split()) in WORDS[level] and "nuclei" in text for text in some), some
                assert kind == "all" or all("dead" in text for text in some)


def test_a_group_has_every_level_in_random_order_and_no_sentence_twice() -> None:
    bank, random = sentences("train", "nuclei"), np.random.default_rng(3)
    firsts = set()
    for _ in range(30):
        group = drawn_group(bank, 3, random)
        assert {level for level, some in bank.items() for text in some if text in group} == set(bank)
        firsts.add(next(level for level, some in bank.items() if group[0] in some))
    assert firsts == set(bank)
    assert len(set(drawn_group(bank, 27, random))) == 27


class Synonyms(GroupHost):
    """Knows three words by a vector each; its mask is the picture times that vector's first number, plus the second."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.network, self.side_px, self.looks = nn.Embedding(3, 2), 8, 0

    @property
    def text_encoder(self) -> list[nn.Module]:
        return []

    @property
    def image_encoder(self) -> list[nn.Module]:
        return []

    def see(self, image: RGB) -> torch.Tensor:
        self.looks += 1
        return torch.from_numpy(image[..., 0] / 255.0 - 0.5).float()

    def answer(self, seen: torch.Tensor, sentences: Any) -> Said:
        words = self.network(torch.tensor([int(text) for text in sentences]))
        return Said(words[:, :1, None] * seen + words[:, 1:, None])

    def save(self, folder: Path) -> None: ...


def trained(beta: float, **changes: Any) -> tuple[Synonyms, float]:
    """After some steps: how far the two synonyms' masks are apart."""
    host = Synonyms()
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    group = PromptGroup(picture, ("0", "1", "2"), torch.from_numpy(picture[..., 0] > 127).float())
    recipe = GroupsRecipe(name="t", host="mini", epochs=0, consistency=beta, **changes)
    optimiser = torch.optim.SGD(host.network.parameters(), lr=0.2)
    for _ in range(40):
        loss, _ = group_objective(host, group, recipe)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert host.looks == 40
    with torch.no_grad():
        masks = host.answer(host.see(picture), ["0", "1"]).masks
    return host, float((masks[0] - masks[1]).abs().mean())


@pytest.mark.parametrize("changes", [{}, {"consistency_pairs": True}, {"consistency_over": "sum"}])
def test_consistency_brings_the_masks_of_synonyms_together(changes: dict[str, Any]) -> None:
    _, apart = trained(0.0)
    # a sum over 64 pixels is 64 means
    _, together = trained(1.0 if changes != {"consistency_over": "sum"} else 1 / 64, **changes)
    assert together < 0.7 * apart


def test_an_absent_class_teaches_presence_and_consistency_alone() -> None:
    host = host_named("mini", "little")
    picture = np.full((64, 64, 3), 200, np.uint8)
    nothing = PromptGroup(picture, ("a", "b", "c"), torch.zeros(64, 64))
    recipe = GroupsRecipe(name="t", host="mini", epochs=0, loss="released", focal_weight=7, dice_weight=5)
    assert recipe.loss_weights == (7, 5, 20)
    _, parts = group_objective(host, nothing, recipe)
    said = host.answer(host.see(picture), nothing.sentences).presence
    assert said is not None
    wanted = 20 * torch.nn.functional.softplus(said).mean()
    assert parts["segment"] == pytest.approx(float(wanted.detach()), rel=1e-4)


def test_manifests_say_classes_folds_and_tiles(drawn: Path) -> None:
    fold = pictures(GroupSet(manifest=drawn, files="fold2_"))
    assert [one.file.name for one in fold] == [f"fold2_{n}.png" for n in range(4)]
    assert fold[0].class_names == ("neoplastic", "inflammatory")
    every, by_class = fold[0].masks()
    assert (every == by_class["neoplastic"] | by_class["inflammatory"]).all()
    merged = GroupSet(manifest=drawn, classes={"cancerous": ("neoplastic",)}, tile_px=40)
    (first, *_) = pictures(merged)
    assert first.class_names == ("cancerous",) and set(first.masks()[1]) == {"cancerous"}
    assert first.tiles() == [(0, 0, 40, 40), (24, 0, 40, 40), (0, 24, 40, 40), (24, 24, 40, 40)]
    sampler = GroupSampler([first], size=2, batch=3, class_share=1.0, absent_share=0.0, seed=7)
    again = GroupSampler([first], size=2, batch=3, class_share=1.0, absent_share=0.0, seed=7)
    assert sampler.steps == 2 and len(sampler.batch(0)) == 3 and len(sampler.batch(1)) == 1
    assert [g.sentences for g in sampler.batch(0)] == [g.sentences for g in again.batch(0)]
    with pytest.raises(InvalidArgumentError, match=r"no row of .* 'fold9' in its name"):
        pictures(GroupSet(manifest=drawn, files="fold9"))


def test_a_tenth_is_drawn_once_and_what_is_left_out_validates(drawn: Path, tmp_path: Path) -> None:
    recipe = GroupsRecipe(name="t", host="mini", train=(GroupSet(manifest=drawn),), fraction=0.5)
    learning, checking = divided_pictures(recipe, tmp_path)
    assert len(learning) == len(checking) == 6
    assert not {one.file for one in learning} & {one.file for one in checking}
    again, _ = divided_pictures(recipe, tmp_path)
    assert [one.file for one in again] == [one.file for one in learning]
    whole, held = divided_pictures(recipe.model_copy(update={"fraction": 1.0}), tmp_path)
    assert len(whole) + len(held) == 12 and held


RELOADED = {"sam3": sam3.load, "base": base_segmenter.load, "clipseg": segmenter.load}


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_trains_in_groups_and_what_is_saved_answers(
    name: str, drawn: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""preset: prompt-groups
name: t
host: {name}
size: little
epochs: 2
fraction: 0.5
threads: 1
learning_rate: 0.01
train: [{{manifest: {drawn}, files: fold1_}}]
validation: [{{manifest: {drawn}, files: fold2_0}}]
test: [{{manifest: {drawn}, files: fold3_0}}]
test_sentences: 2
"""
    )
    out = run_recipe(recipe, tmp_path / "out")
    with (out / "scores.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["kind"], row["class"]) for row in rows} == {
        ("T1", ""), ("T2", ""), ("T2", "neoplastic"), ("T2", "inflammatory")
    }  # fmt: skip
    assert {row["level"] for row in rows} == {"all", "low", "medium", "high"}
    assert all(row["trained_on"] == "0" for row in rows)
    with (out / "sentences.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 3 * 3 * 2  # targets, levels, sentences
    log = (out / "log.csv").read_text().splitlines()
    assert len(log) == 3 and "consistency" in log[0]
    said = torch.load(out / "best.pt", weights_only=True)
    if name == "sam3":
        frozen = host_named("sam3", "little").network  # other random weights of the same names
        assert set(said) == set(frozen.state_dict())
    if name in RELOADED:
        model = RELOADED[name](out / "weights")
        tile = np.full((64, 64, 3), 200, np.uint8)
        prompt = Prompt(None, "nuclei", "nuclei", verbatim=True)
        (answer,) = model.decode(model.encode(tile, model.prepare(tile)), [prompt])
        assert answer.logits.shape == (64, 64) and np.isfinite(answer.logits).all()


def test_frozen_parts_do_not_learn(drawn: Path) -> None:
    for name in HOSTS:
        host = host_named(name, "little")
        before = {key: value.clone() for key, value in host.network.state_dict().items()}
        host.freeze(train_text=False, train_image=False)
        host.train()
        (group,) = GroupSampler(
            pictures(GroupSet(manifest=drawn))[:1], size=2, batch=1, class_share=0, absent_share=0, seed=0
        ).batch(0)
        loss, _ = group_objective(host, group, GroupsRecipe(name="t", host=name, epochs=0))
        learned = [weight for weight in host.network.parameters() if weight.requires_grad]
        optimiser = torch.optim.SGD(learned, lr=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        changed = {
            key for key, value in host.network.state_dict().items() if not torch.equal(value, before[key])
        }
        inside = {id(w) for part in (*host.text_encoder, *host.image_encoder) for w in part.parameters()}
        named = {key for key, weight in host.network.named_parameters() if id(weight) in inside}
        assert changed and not changed & named, name


def test_only_sam3_has_a_semantic_map() -> None:
    tile = np.full((64, 64, 3), 200, np.uint8)
    host = host_named("sam3", "little", aggregation="semantic")
    assert host.answer(host.see(tile), ["nuclei", "all of the nuclei"]).masks.ndim == 3
    with pytest.raises(InvalidArgumentError, match="only sam3"):
        host_named("clipseg", "little", aggregation="semantic")
