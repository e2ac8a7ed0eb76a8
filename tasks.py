"""The door of the deployer: `invoke --list` shows every task."""

import atexit
import gc
import os
import sys

# Invoke forbids to keep compiled modules (its --write-pyc), so that every command would compile the
# deployer anew: a third of its start.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
# Tasks load much and drop little: collecting garbage meanwhile costs a tenth of a command's start,
# and once more at its end, where all of it goes with the process.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

from deploy.tasks import namespace  # noqa: E402

__all__ = ["namespace"]
