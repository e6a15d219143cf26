"""`python -m fastbptt` is the `fastbptt` command."""

from .commands.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
