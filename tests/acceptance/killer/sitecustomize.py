"""Python imports this file in each process that has its folder in PYTHONPATH: it arms the drivers of the kill test,
and who takes the checks of a guard."""

import os
import sys

if {"flows.driver", "guard"} & set(sys.orig_argv):
    sys.path.insert(0, os.environ["KILL_ROOT"])
    from tests.acceptance import kill_points

    kill_points.arm(os.environ["KILL_AT"], os.environ["KILL_FOLDER"])
