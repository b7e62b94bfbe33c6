"""`tissuetalk view RESULT_DIR` with folders that anybody may have written: opened, or refused with a sentence; nothing else is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tissuetalk.models.errors import BadRequestError, UnknownResultError
from tissuetalk.server.commands.view import _roots
from tissuetalk.tools import Session
from tissuetalk.tools.storage.result_folder import MOST_RESULT_BYTES, ResultFolder
from tissuetalk.tools.view import Viewing

IMAGE = Path(__file__).parent / "data" / "images" / "skin_crop_256x160.png"
SECRET = "nobody's but mine"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    (folder / "images").mkdir()
    shutil.copy(IMAGE, folder / "images" / "a.png")
    with Session(folder / "images") as session:
        session.segment("a.png", "outline the nuclei", model="classical-nuclei", mpp=0.25).save(
            folder / "found"
        )
    return folder / "found"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret.csv").write_text(f"id,area_px\n1,{SECRET}\n")
    return Path(shutil.copytree(saved, tmp_path / "found"))


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def resources(**files: str) -> Callable[[Path], object]:
    return edited("result.json", lambda said: said["masks"][0]["resources"].update(files))


def linked(name: str) -> Callable[[Path], object]:
    """The file, or the folder, lies elsewhere."""

    def damage(folder: Path) -> None:
        elsewhere = folder.parent / "elsewhere"
        shutil.move(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return damage


def large(folder: Path) -> None:
    with (folder / "result.json").open("r+b") as file:
        file.truncate(MOST_RESULT_BYTES + 1)


def pipe(folder: Path) -> None:
    (folder / "result.json").unlink()
    os.mkfifo(folder / "result.json")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / "result.json").write_text('{"result_id": '), id="broken"),
        pytest.param(lambda folder: (folder / "result.json").write_text("[" * 200_000), id="deep"),
        pytest.param(lambda folder: (folder / "result.json").write_bytes(bytes(range(256))), id="no text"),
        pytest.param(large, id="large"),
        pytest.param(pipe, id="pipe"),
        pytest.param(edited("result.json", lambda said: said.update(result_id="../../evil")), id="its id"),
        pytest.param(
            edited("result.json", lambda said: said["masks"][0].update(mask_id="../../secret")),
            id="id of a mask",
        ),
        pytest.param(resources(table="../secret.csv"), id="table above"),
        pytest.param(resources(geojson="/tmp/written.geojson"), id="absolute"),
        pytest.param(resources(mask="masks/../../x.png"), id="up in between"),
        pytest.param(linked("result.json"), id="answer is a link"),
        pytest.param(linked("masks"), id="folder is a link"),
        pytest.param(
            lambda folder: linked(f"masks/{next((folder / 'masks').iterdir()).name}")(folder),
            id="mask is a link",
        ),
        pytest.param(lambda folder: shutil.rmtree(folder / "masks"), id="no masks"),
    ],
)
def test_what_cannot_be_trusted_is_refused_and_nothing_of_it_stays(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(folder)
    with Session(tmp_path, workspace=tmp_path / "workspace") as session:
        with pytest.raises(BadRequestError) as refused:
            session.adopt(folder)
        assert session.workspace.results() == []
    assert len(str(refused.value)) < 500 and SECRET not in str(refused.value)
    left = [path for path in (tmp_path / "workspace").rglob("*") if path.suffix in (".png", ".csv", ".json")]
    assert left == []


def test_foreign_files_beside_a_result_are_copied_but_never_shown(folder: Path, tmp_path: Path) -> None:
    (folder / "run.sh").write_text("echo")
    (folder / "link").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(folder / "masks" / "pipe.png")
    with Session(tmp_path, workspace=tmp_path / "workspace") as session:
        result_id = session.adopt(folder)
        assert session.adopt(folder) == result_id
        for name in ("run.sh", "link", "request.json", "masks/pipe.png", "../../workspace.sqlite"):
            with pytest.raises(BadRequestError):
                session.file(result_id, name)
        viewing = Viewing(session)
        (mask,) = viewing.about_result(result_id)["result"]["masks"]
        assert viewing.object_tile(result_id, mask["mask_id"], 0, 0, 0).content
        viewing.close()
    assert not [path for path in (tmp_path / "workspace").rglob("*") if path.is_symlink() or path.is_fifo()]


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"image": 7}', '{"image": null}'])
def test_a_request_that_names_no_image_is_said(folder: Path, content: str) -> None:
    (folder / "request.json").write_text(content)
    with pytest.raises(UnknownResultError, match=r"request\.json"):
        _roots(folder, is_result=True)


@pytest.mark.parametrize("named", ["/etc/passwd", "/tmp/\0x", "gone/a.png", "."])
def test_a_folder_is_opened_only_for_the_very_image(folder: Path, named: str) -> None:
    """Or a stranger's result could open any folder of this machine."""
    image = Path(ResultFolder(folder).request()["image"])
    assert _roots(folder, is_result=True)[0] == image.parent
    edited("request.json", lambda said: said.update(image=named))(folder)
    assert _roots(folder, is_result=True)[0] == folder.resolve()


def test_another_image_of_that_name_opens_no_folder(folder: Path, tmp_path: Path) -> None:
    other = shutil.copy(IMAGE.with_name("OSCC_400x_401.jpg"), tmp_path / "a.png")
    edited("request.json", lambda said: said.update(image=str(other)))(folder)
    assert _roots(folder, is_result=True)[0] == folder.resolve()
