"""Published weights from the Hugging Face hub: only when an operator asks, at one commit, every file checked. Loaders never do this."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tissuetalk.models import registry
from tissuetalk.models.errors import InvalidArgumentError, ModelUnavailableError
from tissuetalk.models.segmentation.pretrained import HubWeights
from tissuetalk.models.writing import remove, write_whole

_WANTED = re.compile(r"[A-Za-z0-9._-]+\.(safetensors|json|txt|model)")
"""At the top of a repository: weights that run nothing when opened, and what says how to read them and words."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class PublishedFile:
    """sha256: of large files; git: the id that git has for a small one."""

    name: str
    size_bytes: int
    sha256: str | None
    git: str | None

    def is_in(self, path: Path) -> bool:
        """Whether the file there is the published one."""
        if path.stat().st_size != self.size_bytes:
            return False
        with path.open("rb") as file:
            if self.sha256 is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            content = file.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.git


@dataclass(frozen=True)
class Published:
    """What would be fetched. commit: of the repository ``hub_id``."""

    model: str
    hub_id: str
    commit: str
    licence: str
    files: tuple[PublishedFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def published(name: str, commit: str | None = None) -> Published:
    """Asks the hub what a model's repository holds; commit: by default the one that is pinned here.

    Raises InvalidArgumentError for a model that has no public weights, which says where to ask, and where no commit is pinned
    and none given; ModelUnavailableError where the hub is not reached or does not let in.
    """
    entry = registry.MODELS.get(name)
    if entry is None:
        raise InvalidArgumentError(
            f"no model is called {name[:100]!r}; choose one of: {', '.join(registry.MODELS)}."
        )
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise InvalidArgumentError("a revision is a commit of 40 hexadecimal digits; a branch could change.")
    weights = entry.weights
    if not isinstance(weights, HubWeights):
        why = entry.why_not() or "it is usable here as it is"
        raise InvalidArgumentError(f"{name} has no weights on the hub to fetch: {why} ({entry.card.source}).")
    commit = commit or weights.revision
    if not commit:
        raise InvalidArgumentError(
            f"no commit of {weights.hub_id} is pinned here, and its newest may be another tomorrow: choose one at "
            f"https://huggingface.co/{weights.hub_id}/commits/main and pass --revision COMMIT."
        )
    from huggingface_hub import HfApi

    with _hub_errors(weights):
        found = HfApi().model_info(weights.hub_id, revision=commit, files_metadata=True, timeout=30)
    files = []
    for each in found.siblings or ():
        if _WANTED.fullmatch(each.rfilename) and each.size is not None:
            sha256 = each.lfs.sha256 if each.lfs is not None else None
            files.append(PublishedFile(each.rfilename, each.size, sha256, each.blob_id))
    if not found.sha or not _COMMIT.fullmatch(found.sha) or commit != found.sha:
        raise ModelUnavailableError(
            f"{name}: the hub gave another commit than it was asked for; try again later."
        )
    if not any(file.name.endswith(".safetensors") for file in files):
        raise ModelUnavailableError(
            f"{name}: {weights.hub_id} publishes no safetensors, and other weights can run code; set {weights.variable} "
            "to a folder with converted ones."
        )
    return Published(name, weights.hub_id, found.sha, weights.licence, tuple(files))


def fetch(found: Published) -> Path:
    """The files into the hub's cache, where the loader looks; files that are there stay. Returns their folder.

    Raises ModelUnavailableError; a file that is not the published one is removed.
    """
    from huggingface_hub import hf_hub_download

    weights = registry.MODELS[found.model].weights
    assert isinstance(weights, HubWeights), "published() gave it"
    for file in found.files:
        with _hub_errors(weights):
            path = Path(hf_hub_download(found.hub_id, file.name, revision=found.commit))
        if not file.is_in(path):
            remove(path.resolve())
            remove(path)
            raise ModelUnavailableError(
                f"{found.model}: {file.name} is not what {found.hub_id} publishes (SHA-256 or size), so it was removed; try again."
            )
    folder = path.parent
    # the loader takes the snapshot that the main branch points at
    main = folder.parent.parent / "refs" / "main"
    main.parent.mkdir(exist_ok=True)
    write_whole(main, found.commit)
    return weights.at(folder)


@contextmanager
def _hub_errors(weights: HubWeights) -> Iterator[None]:
    from huggingface_hub import errors

    # its HTTP client is httpx or httpx2, as its version has it; all that client raises has one parent
    of_client = next(kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    assert issubclass(of_client, Exception), "it is one"
    name, hub_id = weights.model, weights.hub_id
    by_hand = f"fetch {hub_id} on another machine and set {weights.variable} to its folder"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelUnavailableError(
            f"{name}: its owners give access on request: ask at https://huggingface.co/{hub_id}, then set HF_TOKEN and try again."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelUnavailableError(f"{name}: the hub has no {hub_id} at this commit; {by_hand}.") from error
    except errors.HfHubHTTPError as error:
        raise ModelUnavailableError(
            f"{name}: the hub refused {hub_id} ({type(error).__name__}); try again, or {by_hand}."
        ) from error
    except (of_client, OSError, ValueError) as error:
        raise ModelUnavailableError(
            f"{name}: the hub is not reached from this machine, or broke off; what is here already is kept: try again, or "
            f"{by_hand}."
        ) from error
