"""Images are read inside the roots and nowhere else, whatever a name says or somebody swaps in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tissuetalk.models import folders
from tissuetalk.models.errors import (
    ImageChangedError,
    InvalidArgumentError,
    OutsideRootsError,
    TissuetalkError,
    UnknownImageError,
)
from tissuetalk.tools.storage.roots import Roots

CROP = Path(__file__).parent / "data" / "images" / "skin_crop_256x160.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``images/`` with a slide in a folder; ``secret.png`` lies beside the root."""
    folder = tmp_path / "images"
    (folder / "case_7").mkdir(parents=True)
    shutil.copy(CROP, folder / "case_7" / "skin.png")
    shutil.copy(CROP, tmp_path / "secret.png")
    return folder


def test_a_path_inside_a_root_is_opened_relative_absolute_or_by_uri(root: Path) -> None:
    roots = Roots([root])
    with roots.open("case_7/skin.png") as image, roots.open(str(root / "case_7" / "skin.png")) as same:
        assert (image.width, image.height) == (256, 160)
        assert image.image_id == same.image_id
        uri = roots.register(image)
    with roots.open(uri) as again:
        assert f"image://{again.image_id}" == uri


def test_every_root_is_looked_through_by_name_and_the_first_one_wins(root: Path) -> None:
    second = root.parent / "second"
    (second / "case_7").mkdir(parents=True)
    shutil.copy(CROP, second / "b.png")
    shutil.copy(CROP, second / "case_7" / "skin.png")
    roots = Roots([root, second])
    hidden_by_the_first = second / "case_7" / "skin.png"
    assert [image["path"] for image in roots.list_images()] == [
        "case_7/skin.png",
        "b.png",
        str(hidden_by_the_first),
    ]
    there = {"case_7/skin.png": root / "case_7" / "skin.png", "b.png": second / "b.png"}
    for name, path in {**there, str(hidden_by_the_first): hidden_by_the_first}.items():
        with roots.open(name) as image:
            assert image.path == path
    for name in ("../secret.png", "../second/../secret.png", "../nothing.png"):
        with pytest.raises(OutsideRootsError):
            roots.open(name)


def test_links_that_stay_inside_are_followed(root: Path) -> None:
    (root / "link.png").symlink_to(Path("case_7") / "skin.png")
    (root / "case").symlink_to("case_7")
    for name in ("link.png", "case/skin.png", "case_7/../case_7/skin.png", "./case_7//skin.png"):
        with Roots([root]).open(name) as image:
            assert image.width == 256


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "../nothing.png",
        "case_7/../../secret.png",
        "case_7/../../nothing.png",
        "/etc/passwd",
        "/etc/there_is_no_such_file",
        "/",
        "..",
        "/proc/self/environ",
        "/dev/zero",
        "out.png",
        "out/secret.png",
        "out/nothing.png",
        "chain.png",
    ],
)
def test_outside_is_refused_alike_whether_it_exists_or_not(root: Path, name: str) -> None:
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    (root / "chain.png").symlink_to("out.png")
    with pytest.raises(OutsideRootsError) as caught:
        Roots([root]).open(name)
    with pytest.raises(OutsideRootsError) as other:
        Roots([root]).open("../something_else.png")
    assert str(caught.value) == str(other.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "a\0b.png",
        "a\nb.png",
        "x" * 5000,
        "http://host/a.png",
        "file:///etc/passwd",
        "image://",
        "\ud800.png",
    ],
)
def test_what_cannot_be_a_path_is_an_invalid_argument(root: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Roots([root]).open(name)


@pytest.mark.parametrize("name", ["case_7/skni.png", "case_7/skin.PNG.png", "skin.png", "case_7/skin.jpg"])
def test_a_missing_file_names_similar_ones(root: Path, name: str) -> None:
    with pytest.raises(UnknownImageError, match=r"case_7/skin\.png"):
        Roots([root]).open(name)


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "case_7/skin.png/inside.png", "~/secret.png", "zzz"])
def test_a_missing_file_of_any_name_is_a_refusal(root: Path, name: str) -> None:
    with pytest.raises(TissuetalkError):
        Roots([root]).open(name)


@pytest.mark.parametrize("swap", ["file", "folder"])
@pytest.mark.parametrize("walk_is_safe", [True, False], ids=["by descriptor", "by comparing"])
def test_a_link_swapped_in_after_the_check_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch, swap: str, walk_is_safe: bool
) -> None:
    monkeypatch.setattr(folders, "_BY_DESCRIPTOR", walk_is_safe)
    resolve, swapped = os.path.realpath, []

    def resolve_then_swap(path: Path, **options: bool) -> str:
        real = resolve(path, **options)
        if not swapped and str(path).endswith("skin.png"):
            swapped.append(path)
            (root.parent / "skin.png").write_bytes(CROP.read_bytes())
            shutil.rmtree(root / "case_7")
            if swap == "folder":
                (root / "case_7").symlink_to(root.parent)
            else:
                (root / "case_7").mkdir()
                (root / "case_7" / "skin.png").symlink_to(root.parent / "secret.png")
        return real

    roots = Roots([root])
    monkeypatch.setattr(os.path, "realpath", resolve_then_swap)
    with pytest.raises(TissuetalkError) as caught:
        roots.open("case_7/skin.png")
    assert swapped and caught.value.code in {"outside_roots", "unreadable_image"}


def test_a_uri_whose_file_changed_or_went_is_refused(root: Path) -> None:
    roots = Roots([root])
    with roots.open("case_7/skin.png") as image:
        uri = roots.register(image)
    other = Path(CROP.parent / "OSCC_400x_401.jpg").read_bytes()
    (root / "case_7" / "skin.png").write_bytes(other)
    with pytest.raises(ImageChangedError):
        roots.open(uri)
    (root / "case_7" / "skin.png").unlink()
    with pytest.raises(UnknownImageError):
        roots.open(uri)
    with pytest.raises(UnknownImageError):
        roots.open("image://img_" + "0" * 32)


def test_a_private_folder_is_reached_by_uri_only_and_a_lookup_leads_nowhere_else(root: Path) -> None:
    private = root.parent / "uploads"
    private.mkdir()
    shutil.copy(CROP, private / "upload.png")
    places: dict[str, Path] = {}
    roots = Roots([root], private=[private], lookup=places.get)
    with roots.open("case_7/skin.png") as image:
        image_id = image.image_id
    places[image_id] = private / "upload.png"
    with roots.open(f"image://{image_id}") as image:
        assert image.name == image_id, "whoever has only the id is not told the file's name"
    with pytest.raises(OutsideRootsError):
        roots.open(str(private / "upload.png"))
    places[image_id] = root.parent / "secret.png"
    with pytest.raises(OutsideRootsError):
        roots.open(f"image://{image_id}")


def test_a_disk_or_a_home_folder_is_a_root_only_in_so_many_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (Path("/"), tmp_path, tmp_path.parent):
        with pytest.raises(InvalidArgumentError):
            Roots([path])
        assert Roots([path], explicit=True).paths
    for bad in ([], [tmp_path / "missing"], [CROP]):
        with pytest.raises(InvalidArgumentError):
            Roots(bad)


def test_the_list_shows_images_by_the_names_that_open_them(root: Path) -> None:
    second = root.parent / "second"
    second.mkdir()
    shutil.copy(CROP, second / "b.png")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "notes.txt").write_text("no image", encoding="utf-8")
    (root / "out").symlink_to(root.parent)
    (root / "a.svs").write_bytes(b"not decoded")
    roots = Roots([root, second])
    listed = roots.list_images()
    assert [image["path"] for image in listed] == ["a.svs", "case_7/skin.png", "b.png"]
    assert listed[1]["bytes"] == CROP.stat().st_size
    assert len(roots.list_images(1)) == 1
    for image in listed[1:]:
        roots.open(image["path"]).close()
