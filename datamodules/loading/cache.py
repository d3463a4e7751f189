"""Samples decoded once into one array on disk."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from datamodules.loading.decode import image_array, open_image
from datamodules.loading.errors import DataError
from datamodules.loading.folder import Listing

_CHUNK = 512


Numbers = npt.NDArray[np.unsignedinteger[Any]]


class Samples(Protocol):
    """Samples of one shape, decoded one by one."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def decode(self, row: int, /) -> Numbers:
        """Return sample `row`, of `shape`, in the narrowest unsigned type that holds it."""


class LazyImages:
    """Looks like an array uint8 ``[N, C, H, W]``, but decodes the rows that are asked for."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], in_chans: int) -> None:
        self.paths = [str(path) for path in paths]
        self.size = size
        self.in_chans = in_chans
        self.shape: tuple[int, ...] = (in_chans, *size)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return np.stack([self.decode(int(row)) for row in rows])

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, uint8 ``[C, H, W]``."""
        array = image_array(open_image(self.paths[row], self.in_chans))
        if array.shape[1:] != self.size:
            raise DataError(
                f"{self.paths[row]}: expected {self.size[0]}x{self.size[1]} (height x width) like"
                f" the first image, got {array.shape[1]}x{array.shape[2]};"
                " images of several sizes need style: imagenet"
            )
        return array


def fingerprint(listing: Listing, in_chans: int) -> str:
    """Return a short hash of names, sizes and times of all images."""
    files = (listed(path, listing.folder) for path in listing.paths)
    return short_hash(f"2 {in_chans} {listing.folder.resolve()}{''.join(files)}")


def listed(path: Path, root: Path, part: str = "") -> str:
    """A line of a file's name in `root`, the part of it that is meant, its size and its time."""
    stat = path.stat()
    return f"{path.relative_to(root).as_posix()} {part}{stat.st_size} {stat.st_mtime_ns}\n"


def short_hash(settings: str) -> str:
    """16 hex digits that change with whatever a cache was made from."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def user_cache() -> Path:
    """The folder of this project in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fulgurite"


def cache_folder(root: Path, wanted: str | None) -> Path:
    """Return a writable folder: `wanted`, else one beside `root`, else the user's cache."""
    if wanted is not None:
        places = [Path(wanted).expanduser()]
    else:
        places = [root.resolve().parent / f"{root.resolve().name}-decoded", user_cache()]
    reason: Exception | None = None
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error
            continue
        if os.access(place, os.W_OK):
            return place
    raise DataError(
        f"no place for the decoded images: {' and '.join(map(str, places))} cannot be written"
        f" ({reason}); set cache_dir, or cache: false"
    )


def decoded(listing: Listing, size: tuple[int, int], in_chans: int, folder: Path) -> Numbers:
    """Return all images as one memory-mapped array, decoding them on the first call.

    The file appears under its name only when it is complete.

    Args:
        listing: the images.
        size: height and width that all of them must have.
        in_chans: 1 for grey, 3 for RGB.
        folder: where the copy is kept.

    Returns:
        uint8 ``[N, C, H, W]``, read-only.
    """
    path = folder / f"{listing.folder.name}-{fingerprint(listing, in_chans)}.npy"
    return memory_mapped(path, LazyImages(listing.paths, size, in_chans))


def memory_mapped(path: Path, samples: Samples) -> Numbers:
    """Return samples as one memory-mapped array ``[N, *shape]``; the first call writes the file.

    The type is uint8, or the wider one that the largest value needs. Of several processes that ask at once
    one writes and the others wait; what a killed one left behind is removed by the next.
    """
    if not path.is_file():
        with _alone(path.parent):
            if not path.is_file():  # another process has not written it meanwhile
                _decode_into(path, samples)
    try:
        array: Numbers = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}; delete it to decode again") from error
    return array


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process and leaves no file behind.

    Where folders cannot be locked (Windows, some network drives) there is none, and the last to finish wins.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait(handle, folder)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _wait(handle: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    from rich.console import Console

    with Console(stderr=True).status(f"waiting for another process that writes into {folder}"):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _decode_into(path: Path, samples: Samples) -> None:
    for leftover in path.parent.glob(f".{path.stem}-*.part"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    try:
        # written in order instead of through a memory map, which dies by SIGBUS on a full disk
        with os.fdopen(handle, "wb") as file:
            dtype: np.dtype[Any] | None = np.dtype(np.uint8)
            while dtype is not None:  # again from the beginning, wider; almost all sets fit in 8 bits
                file.seek(0)
                file.truncate()
                dtype = _write_all(file, samples, dtype, path.stem.rsplit("-", 1)[0])
            file.flush()
            os.fsync(file.fileno())  # the name must not outlive the bytes, even if the machine stops
        os.chmod(name, 0o644)  # mkstemp makes it private; a shared folder's cache is for all
        os.replace(name, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; set cache_dir or cache: false") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _write_all(file: IO[bytes], samples: Samples, dtype: np.dtype[Any], label: str) -> np.dtype[Any] | None:
    """Write an array of `dtype`; return the type of the first samples that do not fit into it, if any."""
    from rich.progress import Progress

    shape = (len(samples), *samples.shape)
    header: Any = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    with Progress(transient=True) as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        task = progress.add_task(f"decoding {label}", total=shape[0])
        for start in range(0, shape[0], _CHUNK):
            rows = range(start, min(start + _CHUNK, shape[0]))
            chunk = np.stack(list(pool.map(samples.decode, rows)))
            if chunk.dtype.itemsize > dtype.itemsize:
                return chunk.dtype
            file.write(chunk.astype(dtype, copy=False).tobytes())
            progress.advance(task, len(rows))
    return None
