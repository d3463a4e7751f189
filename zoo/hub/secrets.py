"""What looks like a secret, in texts and in files that are to be published."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoo.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path

FORMS = {
    "a Hugging Face token": r"hf_[A-Za-z0-9]{20,}|hf_(?:oauth|jwt|app)_[A-Za-z0-9._-]{16,}",
    "a GitHub token": r"gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}",
    "a GitLab token": r"glpat-[A-Za-z0-9_-]{20,}",
    "an AWS key": r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a Google key": r"AIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a service's key": r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,})",
    "a token of a package registry": r"pypi-[A-Za-z0-9_-]{50,}|npm_[A-Za-z0-9]{36}",
    "a JSON web token": r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a password in an address": r"://[^/\s:@'\"]{1,256}:[^/\s@'\"]{1,256}@",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
}
_patterns = {what: re.compile(form) for what, form in FORMS.items()}
ANY = re.compile("|".join(f"(?:{form})" for form in FORMS.values()))

PNG = b"\x89PNG\r\n\x1a\n"


def find_secret(text: str) -> str | None:
    """What kind of secret ``text`` seems to hold, or None."""
    return next((what for what, pattern in _patterns.items() if pattern.search(text)), None)


def text_of(path: Path) -> str:
    """Everything in a file that somebody could have written as text.

    That is a text file whole, the header of a safetensors file, and of a PNG its bytes and its metadata
    (compressed ones unpacked).

    Raises:
        HubError: if a figure is no PNG image.
    """
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header = file.read(min(int.from_bytes(file.read(8), "little"), 100 * 2**20))
        return header.decode("latin-1")
    data = path.read_bytes()
    text = data.replace(b"\0", b"").decode("latin-1")  # the zeros: UTF-16 is a text, too
    return text + _metadata(path) if path.suffix == ".png" else text


def _metadata(path: Path) -> str:
    """Texts in an image, one a line."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # texts may lie behind the pixels
            parts = [*map(str, image.info.values()), *map(str, image.getexif().values())]
    except Exception as error:  # Pillow raises many kinds
        raise HubError(f"{path} is no PNG image ({error}); take it out before publishing") from None
    return "\n".join(parts)
