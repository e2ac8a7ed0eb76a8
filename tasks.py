"""Entry point of every task: `invoke --list` shows them."""

import atexit
import gc
import os
import sys

# Invoke disables bytecode caches unless --write-pyc is set. Without a cache each command compiles
# the deployer again: a third of its start.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
# Tasks load many modules and drop few objects: garbage collection costs a tenth of a command's
# start, and the same again at its end, when the process frees everything anyway.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

from deploy.tasks import collect_tasks  # noqa: E402
from workshop.tasks import add_tasks  # noqa: E402

namespace = add_tasks(collect_tasks())

__all__ = ["namespace"]
