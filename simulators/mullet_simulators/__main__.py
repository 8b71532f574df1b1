"""`python -m mullet_simulators`."""

import sys

from mullet_simulators.main import main

sys.exit(main())
