"""`python -m eventkit.testing.simulation`."""

import sys

from eventkit.testing.simulation._command import main

sys.exit(main())
