"""CLIPSeg, CRIS and BiomedCLIPSeg: published sizes, loading, what is trained, attribute prompts right and wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from published import published
from test_backends_text import VOCABULARY, save_tokenizer, tiny_clipseg
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.little import little_vlsm
from tissuetalk.models.segmentation.vlsm import segmenter
from tissuetalk.models.segmentation.vlsm.clipseg import LEGACY_LAYERS, BiomedClipSeg, BiomedSizes, ClipSeg
from tissuetalk.models.segmentation.vlsm.cris import ClipResnetSizes, Cris, CrisSizes
from tissuetalk.models.segmentation.vlsm.networks import (
    NAMES,
    SETTINGS,
    Preset,
    TrainingSettings,
    Vlsm,
    build,
    loss_of,
    optimiser_of,
    vlsm_loss,
)
from tissuetalk.models.segmentation.vlsm.segmenter import save_vlsm
from tissuetalk.models.segmenter import Context, Prompt
from tissuetalk.prompts.attributes import ATTRIBUTES, VALUES, Attributes, relative_change, wrong
from tissuetalk.server.commands.train import train
from tissuetalk.tools.train import vlsm, vlsm_data

LITTLE_CRIS = CrisSizes(
    ClipResnetSizes(8, (1, 1, 1, 1), 4, 2, 32, 16, 1, 2, len(VOCABULARY), 12),
    (8, 16, 32),
    1,
    2,
    32,
    side_px=64,
)
LITTLE_BIOMED = BiomedSizes(64, 32, 4, 2, 16, 16, 1, 2, len(VOCABULARY), 12, 16, 32, (1, 2, 3))
SAMPLES = Path(str(files("tissuetalk.models"))) / "datasets" / "samples"


def clipseg(folder: Path) -> Vlsm:
    return build("clipseg", weights=str(tiny_clipseg(folder)))


def cris_file(folder: Path) -> Path:
    """A checkpoint as the published training code writes it."""
    state = {f"module.{key}": value for key, value in published("cris").items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / "cris.pth")
    save_tokenizer(folder)
    return folder / "cris.pth"


def cris(folder: Path) -> Vlsm:
    return build("cris", weights=str(cris_file(folder)), tokenizer=str(folder), sizes=LITTLE_CRIS)


def biomed_file(folder: Path) -> Path:
    """BiomedCLIP as open_clip stores it: no decoder, and a few things nobody needs here."""
    torch.save(published("biomedclip"), folder / "open_clip_pytorch_model.bin")
    save_tokenizer(folder)
    return folder / "open_clip_pytorch_model.bin"


def biomed(folder: Path) -> Vlsm:
    return build("biomedclipseg", weights=str(biomed_file(folder)), sizes=LITTLE_BIOMED)


def settings_of(model: Vlsm, preset: Preset) -> TrainingSettings:
    return SETTINGS[preset, model.name == "cris"]


def train_step(
    model: Vlsm, optimiser: torch.optim.Optimizer, settings: TrainingSettings, *batch: list[object]
) -> float:
    loss = loss_of(model, settings, *batch)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


@pytest.fixture(params=[clipseg, cris, biomed], ids=["clipseg", "cris", "biomedclipseg"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Vlsm:
    load: Callable[[Path], Vlsm] = request.param
    return load(tmp_path)


@pytest.fixture
def pictures() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two pictures, one with a dark square to the left and one to the right, and their masks."""
    images, masks = [], []
    for left in (8, 32):
        mask = np.zeros((60, 64), bool)
        mask[16:44, left : left + 24] = True
        images.append(np.where(mask[..., None], (90, 60, 140), (235, 200, 220)).astype(np.uint8))
        masks.append(mask)
    return images, masks


def test_full_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        whole = Cris().eval()
        tokens = torch.ones(2, 17, dtype=torch.long)
        assert whole(torch.rand(2, 3, 416, 416), tokens, tokens > 0).shape == (2, 1, 416, 416)
        assert whole.proj.txt.out_features == 2305
        assert [tuple(each.shape[1:]) for each in whole.backbone.visual(torch.rand(1, 3, 416, 416))] == [
            (512, 52, 52), (1024, 26, 26), (1024, 13, 13)
        ]  # fmt: skip
        assert round(sum(weight.numel() for weight in whole.parameters()) / 1e6) == 147
        biomedical = BiomedClipSeg().eval()
        given = biomedical.visual.trunk(torch.rand(1, 3, 224, 224))
        said = torch.rand(1, 512)
        assert biomedical.decoder(tuple(given[at] for at in (3, 6, 9)), said).logits.shape[-2:] == (224, 224)
        assert biomedical.text.proj[0].weight.shape == (640, 768)
        config = CLIPSegConfig(
            vision_config={"image_size": 352, "patch_size": 16}, use_complex_transposed_convolution=True
        )
        photographs = ClipSeg(CLIPSegForImageSegmentation(config))
    assert photographs.decoder.film_mul.weight.shape == (64, 512)
    film = {key: value.shape for key, value in photographs.decoder.state_dict().items()}
    assert film == {key: value.shape for key, value in biomedical.decoder.state_dict().items()}


def test_any_picture_and_sentence_get_a_mask_of_the_picture_s_size(
    model: Vlsm, pictures: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    mask = model.segment(pictures[0][0], "a dark square")
    assert mask.shape == (60, 64) and mask.dtype == np.bool_
    with torch.inference_mode():
        both = model.eval()(pictures[0], ["square", "a much longer sentence"])
        alone = model([pictures[0][0]], ["square"])
    assert both.shape == (2, model.side_px, model.side_px)
    assert torch.allclose(both[0], alone[0], atol=1e-4)


def test_a_few_steps_lower_the_loss_and_leave_frozen_encoders_as_they_were(
    model: Vlsm, pictures: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    model.freeze(train_encoders=False)
    before = {
        key: value.clone() for part in model.network.encoders for key, value in part.state_dict().items()
    }
    settings = settings_of(model, "paper")
    optimiser = optimiser_of(model, settings)
    for group in optimiser.param_groups:
        group["lr"] = 3e-3
    images, masks = pictures
    losses = [train_step(model, optimiser, settings, images, ["left", "right"], masks) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]
    after = {key: value for part in model.network.encoders for key, value in part.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_trained_encoders_get_gradients(
    model: Vlsm, pictures: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    model.freeze(train_encoders=True)
    settings = settings_of(model, "released")
    optimiser = optimiser_of(model, settings)
    assert len(optimiser.param_groups) == 2
    train_step(model, optimiser, settings, pictures[0], ["left", "right"], pictures[1])
    encoders = [weight for part in model.network.encoders for weight in part.parameters()]
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in encoders)


def test_losses_are_those_of_the_paper(model: Vlsm) -> None:
    settings = settings_of(model, "paper")
    assert (settings.dice, settings.cross) == ((0.0, 1.0) if model.name == "cris" else (1.0, 0.2))
    truth = torch.zeros(1, 8, 8)
    truth[:, 2:5, 2:5] = 1
    assert float(vlsm_loss(60 * (2 * truth - 1), truth, settings)) < 1e-6


def test_biomedclipseg_d_starts_from_the_decoder_of_clipseg(tmp_path: Path) -> None:
    (tmp_path / "clipseg").mkdir()
    photographs = tiny_clipseg(tmp_path / "clipseg")
    published = CLIPSegForImageSegmentation.from_pretrained(photographs).decoder.state_dict()
    width, hidden = published["layers.0.mlp.fc1.weight"].T.shape
    vision = published["reduces.0.weight"].shape[1]
    depth = len([key for key in published if key.startswith("reduces.") and key.endswith("weight")])
    sizes = BiomedSizes(
        32, vision, 4, 2, 16, 16, 1, 2, len(VOCABULARY), 12, width, hidden, tuple(range(1, depth + 1))
    )  # fmt: skip
    state = BiomedClipSeg(sizes).state_dict()
    if {k: v.shape for k, v in state.items() if k.startswith("decoder.transposed")} != {
        f"decoder.{k}": v.shape for k, v in published.items() if k.startswith("transposed")
    }:
        pytest.fail("the tiny CLIPSeg has another decoder than rd64-refined")
    torch.save({k: v for k, v in state.items() if not k.startswith("decoder.")}, tmp_path / "b.bin")
    save_tokenizer(tmp_path)
    loaded = build("biomedclipseg-d", weights=str(tmp_path / "b.bin"), decoder=str(photographs), sizes=sizes)
    assert all(
        torch.equal(loaded.network.decoder.state_dict()[key], value) for key, value in published.items()
    )


def test_legacy_layers_are_a_choice(tmp_path: Path) -> None:
    sizes = BiomedSizes(64, 32, 11, 2, 16, 16, 1, 2, len(VOCABULARY), 12, 16, 32)
    state = BiomedClipSeg(sizes).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("decoder.")}, tmp_path / "b.bin")
    save_tokenizer(tmp_path)
    model = build("biomedclipseg", weights=str(tmp_path / "b.bin"), sizes=sizes, legacy_layers=True)
    assert model.network.sizes.layers == LEGACY_LAYERS


@pytest.mark.parametrize("prefix", ["module.", "net.", ""], ids=["parallel", "the paper's runs", "converted"])
def test_every_published_weight_of_cris_gets_its_place(prefix: str, tmp_path: Path) -> None:
    """Protects from: CLIP's logit_scale, under ``backbone.`` there, and the whole file was refused."""
    weights = published("cris")
    torch.save({"state_dict": {prefix + key: value for key, value in weights.items()}}, tmp_path / "best.pth")
    save_tokenizer(tmp_path)
    model = build("cris", weights=str(tmp_path / "best.pth"), tokenizer=str(tmp_path), sizes=LITTLE_CRIS)
    loaded = {key: value for key, value in model.network.state_dict().items() if "num_batches" not in key}
    assert set(weights) - set(loaded) == {"backbone.logit_scale"}
    assert all(torch.equal(value.cpu(), weights[key]) for key, value in loaded.items())


def test_every_published_weight_of_biomedclip_gets_its_place(tmp_path: Path) -> None:
    loaded, weights = biomed(tmp_path).network.state_dict(), published("biomedclip")
    ours = {key: value for key, value in loaded.items() if not key.startswith("decoder.")}
    assert set(weights) - set(ours) == {
        "logit_scale",
        "text.transformer.embeddings.position_ids",
        "text.transformer.pooler.dense.bias",
        "text.transformer.pooler.dense.weight",
    }
    assert all(torch.equal(value.cpu(), weights[key]) for key, value in ours.items())


def test_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="give weights, the path of a CRIS checkpoint"):
        build("cris")
    file = cris_file(tmp_path)
    with pytest.raises(ModelUnavailableError, match="do not fit"):
        build("cris", weights=str(file), tokenizer=str(tmp_path))
    with pytest.raises(ModelUnavailableError, match="do not fit"):
        build("biomedclipseg", weights=str(file), tokenizer=str(tmp_path), sizes=LITTLE_BIOMED)
    file.write_bytes(b"nothing")
    with pytest.raises(ModelUnavailableError, match="cannot be read as plain weights"):
        build("cris", weights=str(file), tokenizer=str(tmp_path), sizes=LITTLE_CRIS)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_answers_as_it_did_and_so_does_the_model_made_of_it(
    name: str, tmp_path: Path, pictures: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    torch.manual_seed(0)
    model = little_vlsm(name).eval()
    save_vlsm(model, tmp_path, mpp=0.7)
    again = segmenter.load(tmp_path)
    (image, other), prompt = pictures[0], Prompt(None, "a dark square", "")
    with torch.inference_mode():
        assert torch.equal(model([image, other], ["a", "b"]), again.model([image, other], ["a", "b"]))
    capability = again.capability(prompt)
    assert capability is not None and capability.mpp == 0.7 and again.sent(prompt) == "a dark square"
    (decoded,) = again.decode(again.encode(image, Context({})), [prompt])
    assert np.array_equal(decoded.logits > 0, model.segment(image, "a dark square"))


# --- wrong attributes


FOUND = Attributes("gland", "colon", "few", ("small", "medium"), ("top left", "center"), "oval", "purple")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("swap", ["random word", "other value"])
def test_a_swapped_attribute_is_never_a_true_one_and_nothing_else_changes(attribute: str, swap: str) -> None:
    for seed in range(20):
        changed = wrong(FOUND, attribute, swap, seed)
        now, new = getattr(FOUND, attribute), getattr(changed, attribute)
        values = set(now) if isinstance(now, tuple) else {now}
        (value,) = new if isinstance(new, tuple) else (new,)
        assert value not in values and (value in VALUES[attribute]) == (swap == "other value")
        assert changed == wrong(FOUND, attribute, swap, seed)
        others = [name for name in ATTRIBUTES if name != attribute]
        assert all(getattr(changed, name) == getattr(FOUND, name) for name in others)


def test_an_opposite_is_taken_where_there_is_one() -> None:
    one = Attributes("gland", "colon", "one", ("large",), ("top left",), "", "")
    assert wrong(one, "number", "other value", 0).number == "many"
    assert wrong(one, "sizes", "other value", 0).sizes == ("small",)
    assert wrong(one, "locations", "other value", 0).locations == ("bottom right",)
    assert wrong(one, "shape", "other value", 0) is None
    assert relative_change(0.8, 0.6) == pytest.approx(-25) and relative_change(0, 0.5) is None


# --- recipes


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_recipe_fine_tunes_and_scores(tmp_path: Path) -> None:
    (tmp_path / "clipseg").mkdir()
    tiny_clipseg(tmp_path / "clipseg")
    glands = f"{{manifest: {SAMPLES / 'ebhi-seg-glands'}, label: colon-tissue-gland}}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"{{preset: vlsm, name: t, network: clipseg, weights: clipseg, train: [{glands}], test: [{glands}],"
        " prompt: random, epochs: 2, threads: 1}"
    )
    train(recipe, out=tmp_path / "run")
    assert len(rows(tmp_path / "run" / "log.csv")) == 2
    (row,) = rows(tmp_path / "run" / "scores.csv")
    assert row["set"] == "ebhi-seg-glands" and row["n"] == "10" and 0 <= float(row["dice"]) <= 1
    assert (tmp_path / "run" / "vlsm.safetensors").is_file()


def test_wrong_attributes_change_nothing_for_a_model_that_does_not_read_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_loaded", {})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{preset: vlsm, name: t, network: classical-nuclei, epochs: 0, threads: 1, wrong_attributes: true,"
        f" test: [{{manifest: {SAMPLES / 'dsb2018-histology'}, label: breast-nuclei-nuclei}}]}}"
    )
    train(recipe, out=tmp_path / "run")
    changes = rows(tmp_path / "run" / "wrong_attributes.csv")
    assert {row["attribute"] for row in changes} >= {"sizes", "color"}
    assert {float(row["change_percent"]) for row in changes} == {0.0}


def test_pooled_training_draws_from_every_set_and_keeps_groups_apart() -> None:
    recipe = vlsm.VlsmRecipe.checked(
        {
            "preset": "vlsm",
            "name": "pooled",
            "network": "cris",
            "train": [
                {"manifest": "ebhi-seg-glands", "label": "colon-tissue-gland"},
                {"manifest": "dsb2018-histology", "label": "breast-nuclei-nuclei"},
            ],
            "test": [{"manifest": "camelyon-node-tumour", "label": "breast-tissue-tumor"}],
        },
        SAMPLES / "x.yaml",
    )
    items = [item for source in recipe.train for item in vlsm_data.items_of(source, "train")]
    learning, checking = vlsm_data.divided(recipe.train)
    assert len(learning) + len(checking) == len(items)
    assert {str(item.label) for item in learning} == {"colon-tissue-gland", "breast-nuclei-nuclei"}
    assert not {item.group for item in learning} & {item.group for item in checking}
    for count in (2, 4, 5, 9, 13):
        places = vlsm_data.places_of(count, 4)
        assert [at for place in places for at in range(count)[place]] == list(range(count))
        assert min(place.stop - place.start for place in places) > 1


def test_the_same_seed_gives_the_same_prompt_and_evaluation_keeps_one_form() -> None:
    (source,) = vlsm.VlsmRecipe.checked(
        {
            "preset": "vlsm",
            "name": "t",
            "network": "cris",
            "epochs": 0,
            "test": [{"manifest": "ebhi-seg-glands", "label": "colon-tissue-gland"}],
        },
        SAMPLES / "x.yaml",
    ).test
    item = vlsm_data.items_of(source, "test")[0]
    drawn = [vlsm_data.prompt_text(item, "random", np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2
    assert vlsm_data.prompt_text(item, "P7") == vlsm_data.prompt_text(item, "P7")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "P11"}, "prompt: Input should be 'P0'"),
        ({"network": "segnet"}, "cannot be trained here"),
        ({"train": []}, "nothing to train on"),
        ({"tests": []}, "unknown key tests"),
        ({"test": [{"manifest": "x"}]}, "it lacks test.0.label"),
    ],
)
def test_wrong_recipes_are_refused(change: dict[str, object], message: str) -> None:
    data = [{"manifest": "ebhi-seg-glands", "label": "colon-tissue-gland"}]
    values = {"preset": "vlsm", "name": "t", "network": "cris", "train": data, "test": data} | change
    with pytest.raises(InvalidArgumentError, match=message):
        vlsm.VlsmRecipe.checked(values, SAMPLES / "x.yaml")


def test_shipped_recipes_can_be_read() -> None:
    shipped = sorted(
        (Path(str(files("tissuetalk.models"))) / "segmentation" / "vlsm" / "recipes").glob("*.yaml")
    )
    assert shipped
    for path in shipped:
        recipe = vlsm.VlsmRecipe.read(path)
        assert all(source.manifest.is_file() for source in recipe.test)
