"""``python -m poller_core.cli`` is the ``poller`` command, too."""

from . import main

main()
