"""Entry point of every task: `invoke --list` shows them."""

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

from deploy.tasks import collect_tasks  # noqa: E402
from workshop.tasks import add_tasks  # noqa: E402

namespace = add_tasks(collect_tasks())

__all__ = ["namespace"]
