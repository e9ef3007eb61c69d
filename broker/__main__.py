"""``python -m broker`` is the ``equabot`` command."""

import sys

from broker.cli.main import main

sys.exit(main())
