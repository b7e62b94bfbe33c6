"""The paper's network at a tiny size, and published weights read key by key."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from published import published
from safetensors.torch import save_file

from tissuetalk.models.errors import ModelUnavailableError
from tissuetalk.models.segmentation.pathsegmentor.base import BaseConfig, PathSegmentor, build_base, cosine
from tissuetalk.models.segmentation.pathsegmentor.base_segmenter import load_published, rename, tower_of
from tissuetalk.models.segmentation.pathsegmentor.joint import sine_position
from tissuetalk.models.segmentation.pretrained import read_tensors


@pytest.fixture(scope="module")
def tiny() -> PathSegmentor:
    torch.manual_seed(0)
    return build_base(BaseConfig.tiny()).eval()


def _sentences(batch: int, length: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(1, 200, (batch, length)), torch.zeros(batch, length, dtype=torch.bool)


def test_shapes_are_those_of_the_paper_at_a_smaller_width(tiny: PathSegmentor) -> None:
    with torch.inference_mode():
        features = tiny.encode_image(torch.randint(0, 256, (2, 3, 64, 96)))
        steps, sentence = tiny.answers(features, *_sentences(2))
    assert [level.shape[-2:] for level in features.levels] == [(2, 3), (4, 6), (8, 12)]
    assert features.pixels.shape == (2, 64, 16, 24)
    assert len(steps) == 1 + 3
    assert steps[-1].masks.shape == (2, 12, 16, 24)
    assert sentence.shape == (2, 64)


def test_the_paper_size_has_the_parameters_the_paper_reports() -> None:
    with torch.device("meta"):
        model = build_base()
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert count["image_encoder"] == pytest.approx(206, abs=1)
    assert count["text_encoder"] == pytest.approx(110, abs=1)
    assert count["pixel_decoder"] == pytest.approx(32, abs=1)
    assert count["joint"] == pytest.approx(38, abs=2)


def test_the_query_most_like_the_sentence_is_chosen(tiny: PathSegmentor) -> None:
    with torch.inference_mode():
        features = tiny.encode_image(torch.randint(0, 256, (1, 3, 64, 64)))
        tokens = _sentences(1)
        steps, sentence = tiny.answers(features, *tokens)
        chosen = tiny.decode(features, *tokens)
    similarity = cosine(steps[-1].classes, sentence)[0]
    assert chosen.similarity[0] == similarity.max()
    assert torch.equal(chosen.masks[0], steps[-1].masks[0, similarity.argmax()])
    assert chosen.margin[0] >= 0


def test_padding_changes_no_answer(tiny: PathSegmentor) -> None:
    with torch.inference_mode():
        features = tiny.encode_image(torch.randint(0, 256, (1, 3, 64, 64)))
        tokens, padding = _sentences(1, 5)
        short = tiny.decode(features, tokens, padding)
        longer = torch.cat([tokens, torch.full((1, 4), 3)], dim=1)
        padded = torch.cat([padding, torch.ones(1, 4, dtype=torch.bool)], dim=1)
        long = tiny.decode(features, longer, padded)
    assert torch.allclose(short.masks, long.masks, atol=1e-4)


def test_positions_differ_everywhere() -> None:
    place = sine_position(6, 5, 32, torch.device("cpu"))
    assert torch.cdist(place, place).fill_diagonal_(1).min() > 1e-3


def _published(model: PathSegmentor) -> dict[str, torch.Tensor]:
    """The model's weights under the names a published checkpoint would use."""
    candidates = {
        "image_encoder.body.embeddings.patch_embeddings.projection.": "backbone.patch_embed.proj.",
        "image_encoder.body.embeddings.norm.": "backbone.patch_embed.norm.",
        "pixel_decoder.input_proj.": "sem_seg_head.pixel_decoder.input_proj.",
        "pixel_decoder.encoder.": "sem_seg_head.pixel_decoder.transformer.encoder.layers.",
        "pixel_decoder.mask_features.": "sem_seg_head.pixel_decoder.mask_features.",
        "text_encoder.body.": "sem_seg_head.predictor.lang_encoder.biomed_encoder.",
        "text_encoder.lang_proj": "sem_seg_head.predictor.lang_encoder.lang_proj",
        "logit_scale": "sem_seg_head.predictor.lang_encoder.logit_scale",
        "joint.": "sem_seg_head.predictor.",
    }
    tensors = {}
    for name, value in model.state_dict().items():
        public = None
        for ours, theirs in candidates.items():
            if name.startswith(ours):
                public = theirs + name.removeprefix(ours)
        if name.startswith("image_encoder.body.encoder.stages."):
            stage, kind, rest = name.removeprefix("image_encoder.body.encoder.stages.").split(".", 2)
            rest = (
                rest.replace("projection_in", "f")
                .replace("projection_context", "h")
                .replace("projection_out", "proj")
            )
            if kind == "layers":
                public = f"backbone.layers.{stage}.blocks.{rest}"
            else:
                public = f"backbone.layers.{stage}.downsample.{rest.replace('projection', 'proj')}"
        if name.startswith("image_encoder.norms."):
            stage, rest = name.removeprefix("image_encoder.norms.").split(".", 1)
            public = f"backbone.norm{stage}.{rest}"
        for ours, theirs in (("adapters", "adapter"), ("outputs", "layer")):
            if name.startswith(f"pixel_decoder.{ours}."):
                index, part, rest = name.removeprefix(f"pixel_decoder.{ours}.").split(".", 2)
                norm = "norm." if part == "1" else ""
                public = f"sem_seg_head.pixel_decoder.{theirs}_{int(index) + 1}.{norm}{rest}"
        assert public is not None, name
        tensors[public] = value.clone()
    return tensors


def test_every_weight_of_a_published_checkpoint_finds_its_place(tiny: PathSegmentor) -> None:
    tensors = _published(tiny)
    torch.manual_seed(1)
    other = build_base(BaseConfig.tiny())
    report = load_published(other, tensors)
    assert report.missing == report.unexpected == report.mismatched == ()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in tiny.state_dict().items())


def test_the_report_names_what_did_not_fit(tiny: PathSegmentor) -> None:
    tensors = _published(tiny)
    del tensors["backbone.norm3.weight"]
    tensors["sem_seg_head.predictor.pn_indicator.weight"] = torch.zeros(2, 64)
    tensors["something.of.another.model"] = torch.zeros(1)
    tensors["sem_seg_head.predictor.query_feat.weight"] = torch.zeros(5, 64)
    report = load_published(build_base(BaseConfig.tiny()), tensors)
    assert set(report.missing) == {"image_encoder.norms.3.weight", "joint.query_feat.weight"}
    assert report.unexpected == ("something.of.another.model",)
    assert report.skipped == ("sem_seg_head.predictor.pn_indicator.weight",)
    assert "(5, 64) for (12, 64)" in report.mismatched[0]


def test_a_foreign_checkpoint_is_refused(tiny: PathSegmentor) -> None:
    with pytest.raises(ModelUnavailableError, match="BiomedParse"):
        load_published(tiny, {"conv1.weight": torch.zeros(3)})
    assert rename("conv1.weight") is None


def test_checkpoints_are_read_from_both_formats(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "a.pt")
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")["a"], torch.ones(2))
    assert torch.equal(read_tensors(tmp_path / "a.pt")["a"], torch.ones(2))


EXECUTED = Path(tempfile.gettempdir()) / "tissuetalk-was-executed"


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (EXECUTED,))  # type: ignore[return-value]


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap.pt"
    torch.save({"model": _Trap()}, trap)
    with pytest.raises(ModelUnavailableError, match="plain weights"):
        read_tensors(trap)
    (tmp_path / "noise.pt").write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    for name in ("noise.pt", "absent.pt"):
        with pytest.raises(ModelUnavailableError):
            read_tensors(tmp_path / name)
    assert not EXECUTED.exists()


def both_towers(width: int) -> dict[str, torch.Tensor]:
    """A published checkpoint with the projection of the tower of that width."""
    tensors = published("biomedparse")
    key = "sem_seg_head.predictor.lang_encoder.lang_proj"
    return tensors | {key: torch.rand(width, tensors[key].shape[1])}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
@pytest.mark.parametrize("tower", ["clip", "pubmedbert"])
def test_the_published_layout_fills_every_weight(tower: str, prefix: str) -> None:
    """Names and shapes are those that running BiomedParse's own code gives; PathSegmentor starts from its file."""
    config = BaseConfig.tiny()
    if tower == "clip":
        clip = {"text_tower": "clip", "text_width": 512, "text_layers": 1, "text_heads": 8, "vocabulary": 300}
        config = BaseConfig(**{**vars(config), **clip})
    tensors = {prefix + key: value for key, value in both_towers(config.text_width).items()}
    assert tower_of(tensors) == tower
    report = load_published(build_base(config), tensors)
    assert not report.missing and not report.unexpected and not report.mismatched
    left = {key.removeprefix(prefix) for key in report.skipped}
    other = {"clip": "biomed_encoder", "pubmedbert": "lang_encoder.lang_encoder"}[tower]
    assert all(
        other in key or "spatial" in key or "sptial" in key or "pn_indicator" in key or ".pooler." in key
        for key in left
    ), left
