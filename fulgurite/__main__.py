"""``python -m fulgurite`` is the command ``fulgurite``."""

from cli.main import main

if __name__ == "__main__":
    main()
