"""Repositories on the Hub: what is fetched from them and what goes wrong on the way."""

from __future__ import annotations

from pathlib import Path

from zoo._weights import CONFIG_FILE, WEIGHTS_FILE


def download(repository: str) -> Path:
    """Folder in the local cache with the files of ``OWNER/NAME@REV``."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo_id, _, revision = repository.partition("@")
    folder: Path | None = None
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            file = hf_hub_download(repo_id, name, revision=revision or None)
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name} of hf-hub:{repository} could not be fetched and is not in the local cache"
                f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''});"
                " check the name and the connection, or fetch the folder elsewhere and use"
                " 'local-dir:PATH'"
            ) from error
        folder = Path(file).parent
    assert folder is not None
    return folder
