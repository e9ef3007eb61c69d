"""``python -m equabot_cli`` is the ``equabot`` command."""

import sys

from equabot_cli.main import main

sys.exit(main())
