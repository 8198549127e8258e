"""The hub as a source, through `huggingface_hub`: which files a repository has at a commit, how large they are, what
their hash is, and the user's token for it. `HF_ENDPOINT`, `HF_TOKEN` and `hf auth login` work as everywhere.

The bytes are fetched by `downloads`, because the library checks a file's size only, and here no byte is believed that
was not hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from atmo.errors import Forbidden, ModelNotFound, TransportError, UsageError
from atmo.models.downloads import Downloader, Remote
from atmo.models.pulling import Tell, find_here
from atmo.models.records import StoredModel
from atmo.models.reference import Reference
from atmo.models.shape import is_first, is_projector, parts_of, whole_name
from atmo.models.store import Store
from atmo.models.web import download

# What people take when a repository has many: the best that a laptop runs. The first that is there wins.
USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0")
_LISTED = 12
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubSource:
    """endpoint: another hub than the environment names, for tests."""

    label = "hub"

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._listings: dict[tuple[str, str], Listing] = {}

    def look_up(self, wanted: Reference) -> Named:
        """What a reference means at this moment. Raises TransportError and what `choose` raises."""
        listing = self._list(wanted)
        chosen = choose(wanted, list(listing.sizes))
        return Named(wanted.at(listing.commit, chosen.label), chosen, listing)

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None:
        """The revision is pinned to a commit first, so that the model says for ever which one it is."""
        if wanted.kind != "hub":
            return None
        try:
            named = self.look_up(wanted)
        except TransportError:
            here = find_here(wanted, store)
            if here is None:
                raise
            return here  # without a network, what was asked for is what is here
        pinned, chosen, listing = named.reference, named.chosen, named.listing
        here = find_here(pinned, store) or _unchanged(named, store)
        if here is not None:
            return here
        remotes = [self._remote(listing, wanted.repo, path, chosen.folder) for path in chosen.paths]
        name = name or chosen.name or wanted.repo.rpartition("/")[2].lower()
        with httpx.Client() as client:
            return download(Downloader(client), remotes, store, pinned.source, name, tell)

    def _list(self, wanted: Reference) -> Listing:
        from huggingface_hub import HfApi

        asked = wanted.repo, wanted.revision
        if asked in self._listings:
            return self._listings[asked]
        with _hub_errors(wanted):
            info = HfApi(endpoint=self._endpoint).model_info(
                wanted.repo, revision=wanted.revision or None, files_metadata=True, timeout=10.0
            )
        hashes = {each.rfilename: each.lfs.sha256 for each in info.siblings or () if each.lfs is not None}
        sizes = {each.rfilename: each.size for each in info.siblings or ()}
        self._listings[asked] = Listing(info.sha or "main", sizes, hashes)
        return self._listings[asked]

    def _remote(self, listing: Listing, repo: str, path: str, folder: str) -> Remote:
        from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

        url = hf_hub_url(repo, path, revision=listing.commit, endpoint=self._endpoint)
        size, sha256 = listing.sizes[path], listing.hashes.get(path, "")
        if size is None or not sha256:
            with _hub_errors(Reference(repo, "hub", repo=repo, path=path)):
                seen = get_hf_file_metadata(url, token=get_token(), timeout=10.0)
            size = seen.size or 0
            # The hub names large files by their SHA-256, small ones by git's hash.
            sha256 = seen.etag if seen.etag and _SHA256.fullmatch(seen.etag) else sha256
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Remote(url, path.removeprefix(folder), size, sha256, headers)


def _unchanged(named: Named, store: Store) -> StoredModel | None:
    """A model that came from the same place at another commit and has the same bytes. Reads it, where its sizes fit."""
    place = named.place
    for model in store.models():
        if place.means(model.name, model.root, model.record.source) and named.is_(model):
            return model
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Listing:
    """sizes: bytes by path, None where the hub does not say; hashes: SHA-256 in hex of large files."""

    commit: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chosen:
    """paths: in the repository, of the files that make the model; folder: what is cut off them here; label: what was
    chosen, as it stands in a reference; name: for the model."""

    paths: tuple[str, ...]
    folder: str
    label: str
    name: str


@dataclass(frozen=True, slots=True)
class Named:
    """What the hub calls a model. reference: pinned to a commit."""

    reference: Reference
    chosen: Chosen
    listing: Listing

    @property
    def place(self) -> Reference:
        """The same at any commit."""
        return replace(self.reference, revision="")

    @property
    def size_bytes(self) -> int:
        """0 where the hub does not say it of each file."""
        sizes = [self.listing.sizes[path] for path in self.chosen.paths]
        return 0 if None in sizes else sum(size or 0 for size in sizes)

    @property
    def hashed(self) -> bool:
        """Whether the hub names each of its files by a SHA-256: it does so for large ones."""
        return all(path in self.listing.hashes for path in self.chosen.paths)

    def is_(self, model: StoredModel) -> bool:
        """Whether these are the bytes. Reads them, where the sizes fit."""
        files = {path.removeprefix(self.chosen.folder): path for path in self.chosen.paths}
        sizes = {files.get(entry.path, ""): entry.size for entry in model.entries}
        return sizes == {path: self.listing.sizes[path] for path in self.chosen.paths} and all(
            _sha256(model.folder / here) == self.listing.hashes.get(path) for here, path in files.items()
        )


def choose(wanted: Reference, paths: list[str]) -> Chosen:
    """Which files of a repository are meant. Raises ModelNotFound or UsageError with what there is. Pure."""
    if wanted.path.endswith("/"):
        return _folder(wanted, paths)
    if wanted.path:
        return _file(wanted, paths)
    models = [path for path in paths if path.lower().endswith(".gguf") and is_first(path.rpartition("/")[2])]
    if not models:
        raise UsageError(
            f"{wanted.repo} has no GGUF model.",
            hint=f"Take a file or a folder of it: {_some(wanted, paths)}; or all of it: hf://{wanted.repo}/",
        )
    for quantisation in (wanted.quantisation,) if wanted.quantisation else USUAL:
        of_it = [path for path in models if quantisation.lower() in path.lower()]
        if len(of_it) == 1:
            return _parts(of_it[0], paths)
    if len(models) == 1 and not wanted.quantisation:
        return _parts(models[0], paths)
    what = f"not one {wanted.quantisation}" if wanted.quantisation else f"{len(models)} models"
    raise UsageError(f"{wanted.repo} has {what}.", hint=f"Take one: {_some(wanted, models)}")


def _file(wanted: Reference, paths: list[str]) -> Chosen:
    if wanted.path not in paths:
        raise ModelNotFound(f"{wanted.repo} has no file {wanted.path}.", hint=f"There are: {_some(wanted, paths)}")
    return _parts(wanted.path, paths)


def _parts(path: str, paths: list[str]) -> Chosen:
    """A file with what belongs to it: the other parts, or the weights of an ONNX model."""
    folder, _, last = path.rpartition("/")
    folder = f"{folder}/" if folder else ""
    together = [folder + part for part in parts_of(last)]
    if path.lower().endswith(".onnx"):
        together += [each for each in paths if each.startswith(path) and each != path]
    missing = [each for each in together if each not in paths]
    if missing:
        raise ModelNotFound(f"The repository lacks {missing[0]}, a part of {path}.")
    return Chosen(tuple(together), folder, path, "" if is_projector(path) else whole_name(last).lower())


def _folder(wanted: Reference, paths: list[str]) -> Chosen:
    folder = wanted.path.lstrip("/")
    inside = [path for path in paths if path.startswith(folder) and not path.rpartition("/")[2].startswith(".git")]
    if not inside:
        raise ModelNotFound(f"{wanted.repo} has no folder {folder}.", hint=f"There are: {_some(wanted, paths)}")
    return Chosen(tuple(inside), folder, wanted.path, "")


def _some(wanted: Reference, paths: list[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(f"hf://{wanted.repo}/{path}" for path in paths[:_LISTED]) + more


@contextmanager
def _hub_errors(wanted: Reference) -> Iterator[None]:
    """The library's errors as the project's. Its own HTTP client is not the project's, so neither are its
    exceptions."""
    from huggingface_hub import errors

    network: Any = errors.HfHubHTTPError.__mro__[1]  # the HTTPError of the client it was built with
    what = f"{wanted.repo}/{wanted.path}".rstrip("/")
    try:
        yield
    except errors.GatedRepoError as error:
        raise Forbidden(
            f"{wanted.repo} is given only to those who accepted its terms.",
            hint="Accept them on its page, then log in: hf auth login, or set HF_TOKEN.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{wanted.repo} has no revision {wanted.revision!r}.", hint="Check it.") from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFound(f"{what} is not on the hub.", hint="Check the name of the file.") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"{wanted.repo} is not on the hub, or not for you.",
            hint="Check its name; for a private one log in: hf auth login, or set HF_TOKEN.",
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{wanted.repo!r} is not a repository's name.", hint="Write hf://org/repo.") from error
    except (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, network, OSError) as error:
        why = str(error).split("\n")[0][:160] or type(error).__name__
        raise TransportError(f"The hub cannot be reached: {why}.", hint="Check the network, or HF_ENDPOINT.") from error
