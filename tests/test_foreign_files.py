"""Classifiers, weights, recipes and tables that somebody else wrote: bounded, inside the roots, errors by name (issue 11, class 6)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import disc_image, save
from safetensors.torch import load_file, save_file

from tissuetalk.models import reading
from tissuetalk.models.classifiers.card import (
    FOLDER_VARIABLE,
    SHIPPED,
    ClassifierFile,
    classifier_in_roots,
    read_card,
    read_classifier_file,
)
from tissuetalk.models.classifiers.patches import TissueRules, patch_boxes
from tissuetalk.models.datasets.manifest import read_manifest
from tissuetalk.models.errors import (
    InvalidArgumentError,
    ModelUnavailableError,
    OutsideRootsError,
    TissuetalkError,
)
from tissuetalk.models.images import open_image
from tissuetalk.models.recipe import read_values
from tissuetalk.models.segmentation.pretrained import read_tensors, weights_hash
from tissuetalk.tools.evaluate.compare import read_scores

NAME = "colon-adenocarcinoma"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the shipped classifier in it under another name, and the same beside the root."""
    for folder in ("root", "outside"):
        (tmp_path / folder).mkdir()
        for suffix in (".json", ".safetensors"):
            shutil.copy(SHIPPED / f"{NAME}{suffix}", tmp_path / folder / f"mine{suffix}")
    return tmp_path / "root"


def found(root: Path, name: str = "mine.safetensors") -> ClassifierFile:
    place = classifier_in_roots(name, [root])
    assert isinstance(place, ClassifierFile)
    return place


def rewritten(root: Path, **entries: object) -> None:
    card = root / "mine.json"
    card.write_text(json.dumps(json.loads(card.read_text("utf-8")) | entries), "utf-8")


def reweighted(root: Path, content: bytes) -> None:
    """Other weights, and a card that says they are right."""
    (root / "mine.safetensors").write_bytes(content)
    rewritten(root, weights_sha256=weights_hash(root / "mine.safetensors"))


def test_a_classifier_in_a_root_is_read_from_there(root: Path) -> None:
    card, tensors = read_classifier_file(found(root), "attention")
    assert card == read_card(SHIPPED / f"{NAME}.json") and tensors


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_link_beside_a_classifier_is_refused_alike_wherever_it_leads(root: Path, suffix: str) -> None:
    said = set()
    for target in (root.parent / "outside" / f"mine{suffix}", root.parent / "nothing", root / "mine2.json"):
        (root / f"mine{suffix}").unlink()
        (root / f"mine{suffix}").symlink_to(target)
        with pytest.raises(OutsideRootsError) as refused:
            read_classifier_file(ClassifierFile(root / "mine.safetensors", root), "attention")
        said.add(str(refused.value))
    assert len(said) == 1 and "outside/" not in said.pop()


def test_a_folder_swapped_for_a_link_after_the_check_is_not_followed(root: Path) -> None:
    (root / "kept").mkdir()
    for suffix in (".json", ".safetensors"):
        (root / f"mine{suffix}").rename(root / "kept" / f"mine{suffix}")
    place = found(root, "kept/mine.safetensors")
    shutil.rmtree(root / "kept")
    (root / "kept").symlink_to(root.parent / "outside")
    with pytest.raises(OutsideRootsError):
        read_card(place)


@pytest.mark.parametrize(
    "name",
    ["../outside/mine.safetensors", "../outside/none.safetensors", "/etc/none.json", "out/mine.safetensors"],
)
def test_a_classifier_outside_is_refused_alike(root: Path, name: str) -> None:
    (root / "out").symlink_to(root.parent / "outside")
    with pytest.raises(OutsideRootsError):
        found(root, name)


@pytest.mark.parametrize(
    "name",
    ["a\0.json", "x" * 10_000 + ".json", "loop.json", "loop/a.json", ".json", "pipe.json", "\ud800.json"],
)
def test_what_cannot_be_a_classifiers_file_is_an_error_by_name(root: Path, name: str) -> None:
    (root / "loop.json").symlink_to("loop.json")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe.json")
    with pytest.raises(ModelUnavailableError):
        read_card(found(root, name))


def test_an_encoder_is_never_looked_for_where_a_callers_card_says(root: Path, tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    said = set()
    for encoder in (str(tmp_path / "vit"), str(tmp_path / "nothing"), "/etc", "owner/vit", "~", "../outside"):
        rewritten(root, encoder=encoder)
        with pytest.raises(ModelUnavailableError, match="not registered") as refused:
            read_card(found(root))
        said.add(str(refused.value))
    assert len(said) == 1


def test_an_encoder_the_operator_registered_is_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(root, encoder="owner/vit")
    shutil.copytree(root, root.parent / "known")
    monkeypatch.setenv(FOLDER_VARIABLE, str(root.parent / "known"))
    assert read_card(found(root)).encoder == "owner/vit"


@pytest.mark.parametrize(
    "entries",
    [
        *({"patch_um": value} for value in (0, -5, 1e-9, 1e300, float("nan"), float("inf"), "wide", None)),
        *({"patch_px": value} for value in (0, -1, 2**70, 1.5, True)),
        {"sizes": {"width": 10**12, "classes": 2}},
        {"sizes": {"width": -1, "classes": 2}},
        {"sizes": {"width": {"a": 1}, "classes": 2}},
        {"sizes": {"objects": ["x" * 300]}},
        {"classes": [str(number) for number in range(2000)]},
        {"name": "x" * 10_000},
        {"metrics": {str(number): "" for number in range(200)}},
        {"summary": "x" * 100_000},
        {"classes": "ab"},
    ],
    ids=lambda entries: str(entries)[:40],
)
def test_every_number_and_text_of_a_card_is_bounded(root: Path, entries: dict[str, object]) -> None:
    rewritten(root, **entries)
    with pytest.raises(ModelUnavailableError) as refused:
        read_card(found(root))
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"format": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a":' * 50_000,
        b" " * (2**20 + 2),
        b"\xff\xfe{}",
        b"9" * 10_000,
        b"",
        b"null",
    ],
    ids=["deep", "300 deep", "deep objects", "large", "not UTF-8", "digits", "empty", "null"],
)
def test_a_card_that_is_no_plain_json_is_an_error_by_name(root: Path, content: bytes) -> None:
    (root / "mine.json").write_bytes(content)
    started = time.process_time()
    with pytest.raises(ModelUnavailableError) as refused:
        read_card(found(root))
    assert time.process_time() - started < 1 and len(str(refused.value)) < 1000


def header(length: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        header(2**63),
        header(100),
        header(9 * 2**20, b" " * (9 * 2**20)),
        header(100_000, b"[" * 100_000),
        pickle.dumps({"a": [1.0]}),
        header(64, b'{"a":{"dtype":"F32","shape":[4294967295],"data_offsets":[0,4]}}  ' + b"\0" * 8),
    ],
    ids=["empty", "endless header", "cut off", "large header", "deep header", "pickle", "shape that lies"],
)
def test_weights_that_are_no_plain_safetensors_are_an_error_by_name(root: Path, content: bytes) -> None:
    reweighted(root, content)
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        read_classifier_file(found(root), "attention")
    with pytest.raises(ModelUnavailableError):
        read_tensors(root / "mine.safetensors")


def test_weights_that_are_not_finite_are_refused(root: Path) -> None:
    tensors = load_file(root / "mine.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, root / "bad.safetensors")
    reweighted(root, (root / "bad.safetensors").read_bytes())
    with pytest.raises(ModelUnavailableError, match="not finite"):
        read_classifier_file(found(root), "attention")


def test_an_image_is_never_cut_into_more_patches_than_can_be_read(tmp_path: Path) -> None:
    picture = disc_image(tmp_path / "discs.png", 36)
    with open_image(picture, name="discs.png") as small:
        big = small.overview().repeat(6, axis=0).repeat(6, axis=1)
    rules = TissueRules(least_tissue=0.001, least_share=0.0001)
    with (
        open_image(save(tmp_path / "big.png", np.asarray(big)), name="big.png") as source,
        pytest.raises(InvalidArgumentError, match="would be cut into"),
    ):
        patch_boxes(source, side_px=1, rules=rules)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB.encode(),
        b"[" * 5000,
        b"a: " + b"9" * 6000,
        b"a: 2001-99-99",
        b"\xff",
        b"a: !!python/object/apply:os.system [ls]",
        b"a: b\n" * 100_000,
        b"- a",
        b"1: 2",
    ],
    ids=["aliases", "deep", "digits", "date", "not UTF-8", "python", "large", "a list", "numbers as keys"],
)
def test_a_recipe_that_is_no_plain_table_is_an_error_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    started = time.process_time()
    with pytest.raises(InvalidArgumentError, match=r"recipe\.yaml"):
        read_values(tmp_path / "recipe.yaml")
    assert time.process_time() - started < 3


def manifest(path: Path) -> object:
    return read_manifest(path)


@pytest.mark.parametrize("read", [manifest, read_scores, reading.table_of])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n", b'file,dice\n"' + b"x" * 200_000 + b'"\n', b"", b"\0\0\n\0"]
)
def test_a_table_that_cannot_be_read_is_an_error_by_name(
    tmp_path: Path, read: Callable[[Path], object], content: bytes
) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    try:
        read(tmp_path / "manifest.csv")
    except TissuetalkError as error:
        assert error.code == "invalid_argument"


def test_rows_that_are_short_or_long_do_not_crash_what_reads_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1\n1,2,3\n", "utf-8")
    assert reading.table_of(tmp_path / "t.csv") == (["a", "b"], [{"a": "1", "b": ""}, {"a": "1", "b": "2"}])


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_json_has_no_words_for_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        reading.json_in(text)
