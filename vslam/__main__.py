"""python -m vslam"""

import sys

from vslam.cli.main import main

sys.exit(main())
