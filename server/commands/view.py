"""`tissuetalk view`: the viewer in a browser, on a server of this machine alone."""

from __future__ import annotations

import secrets
import socket
import threading
import time
import webbrowser
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from tissuetalk.models.errors import BadRequestError, InvalidArgumentError, TissuetalkError
from tissuetalk.server.commands.terminal import Reader

if TYPE_CHECKING:
    from tissuetalk.tools.session import Session
    from tissuetalk.tools.view import Viewing

HOST = "127.0.0.1"


def view(
    what: Annotated[
        Path | None, typer.Argument(help="A folder written by segment, or an image or slide.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of this machine; 0 for any that is free.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    workspace: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    reader: Reader = "rules",
) -> None:
    """Look at a result or an image in a browser: pan, zoom, ask, correct. Without an argument: what there is.

    The server answers this machine only, and only who has the address that is printed, which works once.
    """
    from tissuetalk.models import worker
    from tissuetalk.models.memory import few_arenas
    from tissuetalk.server.commands.machine import own_workspace
    from tissuetalk.server.http import Where, serve_service
    from tissuetalk.server.keys import Keys
    from tissuetalk.server.service import Service, Settings

    few_arenas()
    worker.start()
    is_result = what is not None and (what / "result.json").is_file()
    if what is not None and not is_result and not what.is_file():
        raise InvalidArgumentError(
            f"{what} is no image and no folder with a result.json; pass what `segment --out` wrote, or an image."
        )
    keys = Keys(secrets.token_urlsafe(32))
    service = Service(Settings(_roots(what, is_result), workspace or own_workspace(), reader=reader))
    to = "/" if what is None else _address(service.jobs().session, what, is_result)
    threading.Thread(target=_open_ahead, args=(service.viewing(), to), daemon=True).start()
    port = port or _free_port()
    address = f"http://{HOST}:{port}/enter?code={keys.code()}&to={quote(to, safe='')}"

    print(f"open this once: {address}", flush=True)
    if browser:
        threading.Thread(target=_open_when_up, args=(port, address), daemon=True).start()
    serve_service(service, Where(f"{HOST}:{port}"), keys)


def _open_when_up(port: int, address: str) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                webbrowser.open(address)
                return
        time.sleep(0.1)


def _open_ahead(viewing: Viewing, to: str) -> None:
    """What the page will ask for first, while the browser is still starting."""
    from tissuetalk.tools.view.tiles import levels_of

    _, _, shown = to.rpartition("/")
    try:
        if shown.startswith("res_"):
            image = viewing.about_result(shown)["result"]["image"]
        elif shown:
            image = viewing.about_image(f"image://{shown}")
        else:
            return
        viewing.image_tile(image["image_id"], levels_of(image["width"], image["height"]) - 1, 0, 0)
    except TissuetalkError:
        pass  # the page asks the same, and says what is wrong


def _roots(what: Path | None, is_result: bool) -> tuple[Path, ...]:
    """The folder of what is looked at, of a result that of its image, else the current one; and that of the examples.

    A result comes from anybody: the folder it names is opened only where the very image lies that it was made from.
    """
    from tissuetalk.tools.session.session import image_anywhere
    from tissuetalk.tools.storage.result_folder import ResultFolder

    examples = Path(str(resources.files("tissuetalk.models").joinpath("samples"))).resolve()
    if what is None:
        folder = Path.cwd()
        everything = folder == Path.home() or folder in Path.home().parents
        return (examples,) if everything else tuple(dict.fromkeys((folder, examples)))
    if not is_result:
        return (what.resolve().parent, examples)
    stored = ResultFolder(what)
    image = Path(stored.request()["image"])
    try:
        with image_anywhere(stored):
            return (image.parent, examples)
    except BadRequestError:
        return (what.resolve(), examples)


def _address(session: Session, what: Path, is_result: bool) -> str:
    """Of the page that shows it. A result in a folder is copied to the workspace, where everything else finds it."""
    if not is_result:
        with session.open(str(what.resolve())) as source:
            return f"/view?image=image://{source.image_id}"
    return f"/view/{session.adopt(what)}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
