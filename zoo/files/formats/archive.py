"""Zip archives as ``torch.save`` writes them: whole, and no larger unpacked than they are."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MOST_ENTRIES = 1_000_000
PIECE = 1 << 20  # bytes


def is_archive(path: Path) -> bool:
    """Whether a file starts like a zip archive, which is how torch tells its formats apart."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_archive(path: Path) -> None:
    """Compare the checksum of every entry, after their sizes have been found to be those of the file.

    ``torch.save`` stores its entries as they are. Compressed ones, which would unpack to any size, entries
    that share bytes or a name, and data behind the directory are refused before anything is read.

    Raises:
        CheckpointError: the archive is damaged, or is none that torch writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive, path)
            for entry in archive.infolist():
                with archive.open(entry) as content:
                    while content.read(PIECE):  # compares the checksum at the end
                        pass
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises whatever the bytes make of its arithmetic
        raise CheckpointError(f"{path} is damaged (cut off?): {error!r}") from error


def _check_directory(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    size = path.stat().st_size
    names = {entry.filename for entry in entries}
    if archive.comment or len(names) != len(entries) or len(entries) > MOST_ENTRIES:
        raise CheckpointError(f"{path} is no archive that torch writes: its directory is ambiguous")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(
                f"{path} is no archive that torch writes: {entry.filename[:80]} is compressed"
                f" ({entry.compress_size:,} bytes unpack to {entry.file_size:,})"
            )
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path} claims to hold more than its {size:,} bytes: entries share them")
