"""``unremember`` in the shell, and ``python -m unremember``."""

from __future__ import annotations

import sys


def start() -> None:
    """Import the commands and run one. Ctrl-C is one line and exit code 130 during the imports as well."""
    try:
        from unremember.cli.app import main
    except KeyboardInterrupt:
        print("unremember: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    main()


if __name__ == "__main__":
    start()
