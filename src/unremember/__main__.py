"""``python -m unremember`` is ``unremember``."""

from unremember.cli.app import main

main()
