"""The full-size preset at a tiny size: it learns, its run is continued, its folder segments, strangers are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.images import open_image
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, ClipTower, build_base
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import (
    BaseSegmenter,
    examine,
    label_sentence,
    load,
    load_published,
    save_base,
    tower_of,
    word_pieces,
)
from tissuetalk.models.segmentation.pathsegmentor.card import BASE, BASE_WEIGHTS, BaseLabels
from tissuetalk.models.segmentation.pathsegmentor.joint import QueryAnswers
from tissuetalk.models.segmentation.pretrained import token_table
from tissuetalk.models.segmenter import Context, Prompt
from tissuetalk.models.training.base import (
    at_points,
    best_query,
    schedule,
    supervised,
    uncertain_points,
)
from tissuetalk.models.training.loop import parameter_groups
from tissuetalk.models.training.recipes import BaseRecipe
from tissuetalk.models.training.triples import TripleBatch, TripleSampler, triples
from tissuetalk.server.commands.command_line import app
from tissuetalk.tools.segment.engine import find_masks
from tissuetalk.tools.segment.field import FieldOfView, scale_of
from tissuetalk.tools.train.recipes import run_recipe

RECIPES = Path(__file__).parent.parent / "models" / "recipes" / "base"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "nuclei", "##-", "level", "-", "tumor", "in", "breast"]
GLAND, TUMOR = "colon-tissue-gland", "breast-nuclei-tumor"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert BaseRecipe.read(path).config.queries > 0


def drawn(folder: Path) -> Path:
    """Eight pictures: a dark disc that is a gland, a blue square that is tumour nuclei."""
    rows, rng = [], np.random.default_rng(0)
    for number in range(8):
        image = np.full((64, 64, 3), 220, np.uint8)
        gland, tumour = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
        x, y = (int(value) for value in rng.integers(14, 30, 2))
        cv2.circle(gland, (x, y), 12, 255, -1)
        tumour[40:60, x : x + 20] = 255
        image[gland > 0], image[tumour > 0] = (90, 40, 120), (200, 60, 60)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        for label, mask in ((GLAND, gland), (TUMOR, tumour)):
            name = f"{number}-{label}.png"
            cv2.imwrite(str(folder / name), mask)
            rows.append(f"{number}.png,{name},binary,{label},g{number},{label.split('-')[0]},0.25,train\n")
    manifest = folder / "manifest.csv"
    manifest.write_text("file,mask,mask_kind,mask_class,group,organ,mpp_um,split\n" + "".join(rows))
    return manifest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the drawn pictures, made in two parts as if it had been killed."""
    folder = tmp_path_factory.mktemp("base")
    drawn(folder)
    values = {
        "preset": "base", "name": "drawn", "manifests": ["manifest.csv"], "batch": 4, "side_px": 64, "steps": 30,
        "learning_rate": 3e-3, "encoder_rate": 1.0, "text_rate": 1.0, "points": 256, "threads": 1,
        "model": {"size": "tiny", "vocabulary": 30522},
    }  # fmt: skip
    recipe = folder / "recipe.yaml"
    for steps in (30, 60):
        recipe.write_text(yaml.safe_dump(values | {"steps": steps}))
        run_recipe(recipe, folder / "run")
    return folder / "run"


def test_the_loss_goes_down_and_a_run_is_continued(run: Path) -> None:
    with (run / "log.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    for part in ("loss", "dice"):
        values = [float(row[part]) for row in rows]
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])
    assert (run / "curves.png").stat().st_size > 0


def test_a_run_s_folder_segments_by_label(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASE_WEIGHTS.variable, str(run / "weights"))
    assert BASE.why_not() is None
    model = load()
    assert model.report is not None
    assert model.report.missing == model.report.unexpected == ()
    tile = cv2.cvtColor(cv2.imread(str(run.parent / "0.png")), cv2.COLOR_BGR2RGB)
    prompts = [Prompt(label, label, label_sentence(label)) for label in (GLAND, TUMOR)]
    features = model.encode(np.asarray(tile, np.uint8)[:60], Context({}))
    both = model.decode(features, prompts)
    alone = model.decode(model.unpack(model.pack(features)), prompts[:1])
    assert both[0].logits.shape == (60, 64)
    assert np.abs(both[0].logits - alone[0].logits).max() < 0.1
    finished = model.finish(both[0], prompts[0], Context({}))
    assert finished.instances is not None
    capability = model.capability(prompts[0])
    assert capability is not None
    assert (capability.target, capability.objects) == (GLAND, True)
    stranger = Prompt("kidney-nuclei-neoplastic", "kidney", "")
    assert model.capability(stranger) is None
    assert len(model.nearest(stranger)) == 2


def test_the_command_line_uses_it(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(BASE_WEIGHTS.variable, str(run / "weights"))
    monkeypatch.setattr(registry, "_loaded", {})
    image = str(run.parent / "0.png")
    out = tmp_path / "out"
    asked = [
        "segment",
        image,
        "--target",
        GLAND,
        "--mpp",
        "0.25",
        "--model",
        "pathsegmentor",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    (mask,) = json.loads((out / "result.json").read_text())["masks"]
    assert mask["label"] == GLAND
    assert mask["provenance"]["model"] == "pathsegmentor"
    told = CliRunner().invoke(app, ["weights", str(run / "weights" / "model.safetensors"), "--json"])
    assert json.loads(told.output)["missing"] == []


def test_a_patch_reaches_the_network_as_large_as_in_training(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Protects from: a patch of 256 px was trained on at 1024 px and answered at 256 px."""
    monkeypatch.setenv(BASE_WEIGHTS.variable, str(run / "weights"))
    model = load()
    assert model.repertoire.shown_at_px == 64
    seen: list[tuple[int, ...]] = []
    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda tile, context: seen.append(tile.shape) or encode(tile, context)
    )
    prompt = Prompt(GLAND, GLAND, label_sentence(GLAND))
    capability = model.capability(prompt)
    assert capability is not None
    image = cv2.imread(str(run.parent / "0.png"))
    shown = []
    for side, mpp in ((64, 0.25), (16, 1.0), (256, 0.0625)):  # one field of view, however finely it is stored
        cv2.imwrite(str(tmp_path / f"{side}.png"), cv2.resize(image, (side, side)))
        with open_image(tmp_path / f"{side}.png", name="patch.png") as source:
            field = FieldOfView(source, model, source.box, scale_of(source, mpp, model))
            (found,) = find_masks(field, [(prompt, capability)])
        shown.append(found.model_mpp)
    assert seen == [(64, 64, 3)] * 3 and shown == [0.25] * 3
    cv2.imwrite(str(tmp_path / "half.png"), image[:32, :32])
    with open_image(tmp_path / "half.png", name="half.png") as source:
        field = FieldOfView(source, model, source.box, scale_of(source, 0.25, model))
        (found,) = find_masks(field, [(prompt, capability)])
    assert seen[-1] == (64, 64, 3) and found.model_mpp == 0.125
    published = BaseLabels(None, 0.25)
    assert published.mpp_of_picture(0.25, 256 * 0.25, 256 * 0.25) == 0.0625
    assert published.mpp_of_picture(0.25, 1500 * 0.25, 800 * 0.25) == pytest.approx(0.25 * 1500 / 1024)
    assert published.mpp_of_picture(0.25, 1501 * 0.25, 800 * 0.25) == 0.25


def test_a_type_of_an_external_set_is_known_where_it_was_trained_in_another_organ() -> None:
    """Protects from: weights trained here refused every type of CoNSeP."""
    known = BaseLabels(frozenset({"breast-nuclei-lymphocyte", "colon-tissue-gland"}), 0.25)

    def asked(label: str) -> bool:
        return known.capability(Prompt(label, label, label)) is not None

    assert asked("breast-nuclei-lymphocyte") and asked("colon-nuclei-lymphocyte")
    assert not asked("colon-nuclei-neutrophil")


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.delenv(BASE_WEIGHTS.variable, raising=False)
    assert BASE_WEIGHTS.variable in (BASE.why_not() or "")
    monkeypatch.setenv(BASE_WEIGHTS.variable, str(tmp_path))
    assert "0 weight files" in (BASE.why_not() or "")
    tensors = load_file(run / "weights" / "model.safetensors")
    del tensors["joint.query_feat.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert "vocab.txt" in (BASE.why_not() or "")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "config.json").write_text((run / "weights" / "config.json").read_text())
    with pytest.raises(ModelUnavailableError, match=r"lacks 1 of .* joint\.query_feat\.weight"):
        BaseSegmenter(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model": {"wings": 2}}')
    with pytest.raises(ModelUnavailableError, match="wings"):
        BaseSegmenter(tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailableError, match="vocabulary"):
        word_pieces(tmp_path / "config.json", 77)


def test_a_recipe_s_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for values, told in (
        ({"name": "x", "manifests": ["m.csv"], "rate": 1}, "unknown key rate"),
        ({"name": "x"}, "lacks manifests"),
        ({"name": "x", "manifests": ["m.csv"], "side_px": 100}, "multiple of 32"),
        ({"name": "x", "manifests": ["m.csv"], "model": {"wings": 2}}, "wings"),
        ({"name": "x", "manifests": ["m.csv"], "model": {"text_tower": "clip"}}, "tokenizer of its own"),
    ):
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(InvalidArgumentError, match=told):
            BaseRecipe.read(path)


def recipe(**changes: object) -> BaseRecipe:
    return BaseRecipe.model_validate({"name": "t", "manifests": (Path("m.csv"),), "points": 64} | changes)


def asked(truth: torch.Tensor, shown: float, counts: float) -> TripleBatch:
    """A tile whose pixels and words are not looked at."""
    return TripleBatch(truth, truth, torch.tensor([shown]), torch.tensor([counts]), truth, truth)


def test_a_perfect_mask_costs_nothing_and_its_query_is_chosen() -> None:
    truth = torch.zeros(1, 32, 32)
    truth[:, 8:24, 8:24] = 1
    masks = torch.full((1, 3, 8, 8), -20.0)
    masks[0, 1, 2:6, 2:6] = 20.0
    classes = torch.eye(3)[None]
    answers = QueryAnswers(classes, masks)
    points = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(0))
    assert best_query(answers, torch.zeros(1, 3), truth, points).tolist() == [1]
    whole = recipe(full_image_loss=True)
    draw = torch.Generator().manual_seed(0)
    sentence, scale = classes[:, 1], torch.tensor(5.0)
    there, lost = asked(truth, 1, 1), asked(truth, 0, 0)
    loss, parts = supervised([answers] * 2, sentence, scale, there, whole, draw)
    assert parts["bce"] == pytest.approx(0, abs=1e-6)
    assert parts["dice"] == pytest.approx(0, abs=1e-6)
    assert float(loss) == pytest.approx(0, abs=1e-3)
    wrong, _ = supervised([answers] * 2, classes[:, 0], scale, there, whole, draw)
    assert float(wrong) > 10
    nothing, _ = supervised([answers], classes[:, 0], scale, lost, whole, draw)
    assert float(nothing) == 0
    empty = asked(torch.zeros(1, 32, 32), 0, 1)
    silent, _ = supervised([answers], classes[:, 0], scale, empty, whole, draw)
    loud, _ = supervised([answers], classes[:, 1], scale, empty, whole, draw)
    assert float(silent) < 0.1
    assert float(loud) > 1


def test_now_and_then_something_absent_is_asked_for(tmp_path: Path) -> None:
    manifest = drawn(tmp_path)
    header, *rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([f"{header},absent", *(f"{row},colon-nuclei-dead" for row in rows)]) + "\n")
    asked = BaseRecipe(name="t", manifests=(manifest,), batch=8, side_px=64, absent_share=0.5)
    batch = TripleSampler(triples(asked), asked, lambda sentences: token_table([[1]] * len(sentences))).batch(
        0
    )
    assert 0 < batch.shown.sum() < 8
    assert torch.equal(batch.counts, torch.ones(8))
    assert torch.equal(batch.truth.amax((1, 2)), batch.shown)


def test_points_gather_where_the_mask_is_unsure() -> None:
    logits = torch.linspace(-9, 9, 17).expand(1, 17, 17)
    points = uncertain_points(logits, 400, torch.Generator().manual_seed(1))
    near = ((points[0, :, 0] - 0.5).abs() < 0.1).float().mean()
    assert float(near) > 0.5
    assert at_points(logits[:, None], torch.tensor([[[0.5, 0.2]]])).item() == pytest.approx(0, abs=1e-4)


def test_the_rate_warms_up_and_falls_twice() -> None:
    found = [schedule(step, 1000, recipe()) for step in (0, 9, 500, 900, 999)]
    assert found == pytest.approx([0.1, 1, 1, 0.1, 0.01])


def test_encoders_learn_slower_and_norms_do_not_decay() -> None:
    model = build_base(BaseConfig.tiny())
    groups = parameter_groups(model, recipe())
    assert {(group["factor"], group["weight_decay"]) for group in groups} == {
        (0.1, 0.05), (0.1, 0.0), (1.0, 0.05), (1.0, 0.0),
    }  # fmt: skip
    plain = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert id(model.joint.query_feat.weight) in plain
    assert id(model.joint.class_embed) not in plain
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_clip_tower_of_a_published_checkpoint_is_recognised_and_loaded() -> None:
    config = BaseConfig(
        **{
            **BaseConfig.tiny().__dict__,
            "text_tower": "clip",
            "text_width": 512,
            "text_heads": 8,
            "vocabulary": 50,
        }
    )
    model = build_base(config).eval()
    assert isinstance(model.text_encoder, ClipTower)
    theirs = "sem_seg_head.predictor.lang_encoder."
    tensors = {
        (
            theirs + "lang_encoder." + name.removeprefix("body.")
            if name.startswith("body.")
            else theirs + name
        ): value
        for name, value in model.text_encoder.state_dict().items()
    }
    assert theirs + "lang_encoder.resblocks.0.attn.in_proj_weight" in tensors
    assert tower_of(tensors) == "clip"
    tensors[theirs + "biomed_encoder.embeddings.word_embeddings.weight"] = torch.zeros(3, 3)
    other = build_base(config).eval()
    report = load_published(other, tensors)
    assert report.unexpected == report.mismatched == ()
    assert len(report.skipped) == 1
    assert not any(name.startswith("text_encoder.") for name in report.missing)
    ids, padding = torch.tensor([[1, 7, 9]]), torch.zeros(1, 3, dtype=torch.bool)
    with torch.inference_mode():
        short, said = model.text_encoder(ids, padding)
        longer = torch.cat([ids, torch.zeros(1, 2, dtype=torch.long)], dim=1)
        hidden = torch.cat([padding, torch.ones(1, 2, dtype=torch.bool)], dim=1)
        long, again = other.text_encoder(longer, hidden)
    assert torch.allclose(short, long[:, :3], atol=1e-5)
    assert torch.allclose(said, again, atol=1e-5)


def test_a_checkpoint_of_the_paper_s_size_is_looked_into_without_building_the_network(tmp_path: Path) -> None:
    file = tmp_path / "published.safetensors"
    theirs = "sem_seg_head.predictor."
    tensors = {
        f"{theirs}query_feat.weight": torch.zeros(101, 512),
        f"{theirs}query_embed.weight": torch.zeros(100, 512),
        f"{theirs}lang_encoder.lang_proj": torch.zeros(512, 512),
        "criterion.empty_weight": torch.zeros(1),
        "stranger": torch.zeros(1),
    }
    save_file(tensors, file)
    told = CliRunner().invoke(app, ["weights", str(file)])
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert {"loaded: 2", "unexpected: 1", "  stranger", "mismatched: 1", "skipped: 1"} <= set(lines)
    assert any("text_encoder.body.resblocks.11" in line for line in lines)
    report = examine(file)
    assert len(report.missing) > 400


def test_saving_and_examining_keep_every_weight(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = BaseConfig.tiny()
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(WORDS))
    model = build_base(config)
    file = save_base(model, config, tmp_path / "w", labels=[TUMOR], vocabulary=vocabulary)
    again = BaseSegmenter(file)
    assert all(
        torch.equal(value, again.model.state_dict()[name].cpu()) for name, value in model.state_dict().items()
    )
    assert again.repertoire.labels == frozenset({TUMOR})
