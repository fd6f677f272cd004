"""Folders of images, one subfolder per class, and CIFAR-10's binary files."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from widthwise.core import DataError, progress, require_memory
from widthwise.data._idx import is_idx_folder, read_idx_folder
from widthwise.data._raw import Raw, is_grey, picture

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_folder(folder: Path, name: str) -> Raw:
    """CIFAR-10 binary files, IDX files, or images in one subfolder per class (below train/ and test/, or directly).

    Raises:
        DataError: none of these, or files that cannot be used.
    """
    if sorted(folder.glob("data_batch_*.bin")):
        return read_cifar10(folder, name)
    if is_idx_folder(folder):
        return read_idx_folder(folder, name)
    if _class_folders(folder / "train"):
        train, labels, classes = read_images(folder / "train")
        test = None
        if _class_folders(folder / "test"):
            held_out, held_labels, _ = read_images(folder / "test", classes)
            test = (held_out, held_labels)
        return Raw(name, train, labels, f"images in {folder}", classes, test, kind="image", channels_first=True)
    images, labels, classes = read_images(folder)
    return Raw(name, images, labels, f"images in {folder}", classes, kind="image", channels_first=True)


def read_cifar10(folder: Path, name: str) -> Raw:
    """CIFAR-10, binary version: records of one label byte and 3072 bytes (red, green, blue planes of 32x32).

    Raises:
        DataError: a file that is no whole number of records, or a label above 9.
    """
    batches = [_cifar_batch(path) for path in sorted(folder.glob("data_batch_*.bin"))]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    test_file = folder / "test_batch.bin"
    test = _cifar_batch(test_file) if test_file.is_file() else None
    source = f"CIFAR-10 binary files in {folder}"
    return Raw(name, images, labels, source, CIFAR10_CLASSES, test, kind="image", channels_first=True)


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % _CIFAR_RECORD:
        raise DataError(
            f"{path} is {content.size} bytes long, which is no whole number of records of {_CIFAR_RECORD} bytes; "
            "get the binary version of CIFAR-10 again."
        )
    records = content.reshape(-1, _CIFAR_RECORD)
    high = np.flatnonzero(records[:, 0] > 9)
    if len(high):
        raise DataError(
            f"{path} has label {int(records[high[0], 0])} in record {int(high[0])}, above 9; "
            "get the binary version of CIFAR-10 again."
        )
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


Images = UInt8[np.ndarray, "samples channels height width"]
Labels = Int64[np.ndarray, "samples"]


def read_images(folder: Path, classes: tuple[str, ...] | None = None) -> tuple[Images, Labels, tuple[str, ...]]:
    """Images as ``[samples, channels, height, width]`` uint8, class indices, and class names.

    Grey images have one channel; if any image has colour, all have three.

    Raises:
        DataError: no images, a class without images, an image that cannot be read or has another size.
    """
    folders = _class_folders(folder)
    names = tuple(path.name for path in folders)
    classes = names if classes is None else classes
    strange = next((name for name in names if name not in classes), None)
    if strange is not None:
        raise DataError(f"{folder} has a class folder {strange!r} that the training part lacks; remove or rename it.")
    files = [(path, classes.index(place.name)) for place in folders for path in _image_files(place)]
    empty = next((place for place in folders if not _image_files(place)), None)
    if not files or empty is not None:
        raise DataError(
            f"{empty or folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); "
            "give a folder with one subfolder of images for each class."
        )
    shape, colour = _common_shape([path for path, _ in files])
    require_memory(5.0 * len(files) * np.prod(shape) * colour, f"images in {folder}", "use fewer or smaller images.")
    images = np.empty((len(files), colour, *shape), dtype=np.uint8)
    with progress("reading images", len(files)) as advance:
        for i, (path, _) in enumerate(files):
            images[i] = _pixels(path, colour == 3)
            advance(1)
    return images, np.array([label for _, label in files], dtype=np.int64), classes


def _common_shape(paths: list[Path]) -> tuple[tuple[int, int], int]:
    """Height and width of all images, and channels."""
    sizes: dict[tuple[int, int], Path] = {}
    colour = 1
    for path in paths:
        try:
            with Image.open(path) as image:
                size, mode, grey = image.size, image.mode, is_grey(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
        if mode.startswith(("I", "F")):
            raise DataError(
                f"image {path} has more than 8 bits per pixel (mode {mode}); save it with 8 bits per channel."
            )
        colour = colour if grey else 3
        sizes.setdefault(size, path)
    if len(sizes) > 1:
        (first, _), (other, culprit) = list(sizes.items())[:2]
        raise DataError(
            f"image {culprit} is {other[0]}x{other[1]} pixels and the first one is {first[0]}x{first[1]}; "
            "bring all images to one size."
        )
    width, height = next(iter(sizes))
    return (height, width), colour


def _pixels(path: Path, colour: bool) -> UInt8[np.ndarray, "channels height width"]:
    try:
        with Image.open(path) as image:
            return picture(image, colour)
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"image {path} cannot be read ({type(error).__name__}); save it again or remove it.")
