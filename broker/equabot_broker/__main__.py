"""``python -m equabot_broker`` is the ``equabot`` command."""

import sys

from equabot_cli.main import main

sys.exit(main())
