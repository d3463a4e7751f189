"""``python -m fulgurite`` is the command ``fulgurite``."""

from __future__ import annotations

import sys

from fulgurite import shadows


def main() -> None:
    """Run the command, or say which file hides one of the packages it is made of."""
    try:
        shadows.check()
    except shadows.ShadowedPackageError as error:
        sys.stderr.write(f"fulgurite: error: {error}\n")
        raise SystemExit(2) from None
    from cli.main import main as run

    run()


if __name__ == "__main__":
    main()
