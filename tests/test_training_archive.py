"""Training data in one file: the same examples come out, and nothing that does not belong there."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tissuetalk.models.datasets.archive import data_folder
from tissuetalk.models.datasets.sources import load
from tissuetalk.models.errors import InvalidArgumentError
from tissuetalk.models.training.mini import unlabelled
from tissuetalk.models.training.recipes import MiniRecipe
from tissuetalk.tools.train.recipes import pack_recipe, run_recipe

RECIPES = Path(__file__).parent.parent / "models" / "recipes"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    values = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    values |= {
        "data_root": str((RECIPES / values["data_root"]).resolve()),
        "steps": 2,
        "batch": 2,
        "crop_px": 64,
    }
    values |= {"image_batches": 1, "sentences": 2, "group_size": 2, "threads": 1}
    values |= {"unlabelled": ["ebhi-seg-glands/**/*.png"], "mix": {"dsb2018-histology/nuclei": 1.0}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_archive_gives_the_same_examples_and_trains(recipe: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("tissuetalk")
    file = tmp_path / "data.tar"
    done = subprocess.run(
        [command, "train", recipe, "--pack", file, "--most-mb", "40", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(json.loads(done.stdout)["bytes"]) == {"dsb2018-histology", "ebhi-seg-glands"}
    with tarfile.open(file) as tar:
        about = tar.extractfile(tar.next() or "")
        assert about is not None
        assert json.loads(about.read())["sets"]["dsb2018-histology"]["licences"] == ["CC0-1.0"]
    values = yaml.safe_load(recipe.read_text()) | {"data_root": "data.tar"}
    packed = tmp_path / "packed.yaml"
    packed.write_text(yaml.safe_dump(values))
    first, second = MiniRecipe.read(recipe), MiniRecipe.read(packed)
    pairs = zip(
        [*load(first.data, "dsb2018-histology"), *unlabelled(first)],
        [*load(second.data, "dsb2018-histology"), *unlabelled(second)],
        strict=True,
    )
    for one, other in pairs:
        assert (one.name, one.group, one.held_out, one.mpp) == (
            other.name,
            other.group,
            other.held_out,
            other.mpp,
        )
        assert np.array_equal(one.image, other.image)
        for target, labelled in one.targets.items():
            assert np.array_equal(labelled.label, other.targets[target].label)
    assert second.data.is_relative_to(tmp_path / "cache")
    assert run_recipe(packed, tmp_path / "run").is_file()


def test_what_is_too_large_taken_missing_or_of_another_preset_is_not_packed(
    recipe: Path, tmp_path: Path
) -> None:
    file = tmp_path / "data.tar"
    with pytest.raises(InvalidArgumentError, match="take sets out of the mix"):
        pack_recipe(recipe, file, most_mb=0.01)
    file.write_text("mine")
    with pytest.raises(InvalidArgumentError, match="exists"):
        pack_recipe(recipe, file)
    missing = tmp_path / "missing.yaml"
    missing.write_text(
        yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"mix": {"glomeruli-pas/glomerulus": 1}})
    )
    with pytest.raises(InvalidArgumentError, match="no manifest in"):
        pack_recipe(missing, tmp_path / "missing.tar")
    other = tmp_path / "base.yaml"
    other.write_text("preset: base")
    with pytest.raises(InvalidArgumentError, match="only data of the preset mini"):
        pack_recipe(other, tmp_path / "base.tar")


def _archive(file: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> None:
    about = json.dumps({"format": 1, "sets": {"tnbc-nuclei": {}}}).encode()
    with tarfile.open(file, "w:") as tar:
        for entry, content in ((tarfile.TarInfo("data.json"), about), *entries):
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("tnbc-nuclei/manifest.csv")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        lambda: tarfile.TarInfo("../manifest.csv"),
        lambda: tarfile.TarInfo("/tnbc-nuclei/manifest.csv"),
        lambda: tarfile.TarInfo("tnbc-nuclei/../../x.csv"),
        lambda: tarfile.TarInfo("other-set/manifest.csv"),
        lambda: tarfile.TarInfo("tnbc-nuclei/run.py"),
        _link,
    ],
    ids=["above", "root", "below and above", "other set", "code", "link"],
)
def test_an_archive_of_a_stranger_is_refused_and_leaves_nothing(
    tmp_path: Path, entry: Callable[[], tarfile.TarInfo]
) -> None:
    file = tmp_path / "strange.tar"
    _archive(file, (tarfile.TarInfo("tnbc-nuclei/a.png"), b"x"), (entry(), b""))
    with pytest.raises(InvalidArgumentError, match="no whole archive of training data"):
        data_folder(file)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_what_is_cut_off_or_no_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut.tar"
    _archive(file, (tarfile.TarInfo("tnbc-nuclei/a.png"), bytes(4000)))
    for content in (file.read_bytes()[:-12000], b"PK", b""):
        file.write_bytes(content)
        with pytest.raises(InvalidArgumentError, match="no whole archive of training data"):
            data_folder(file)
