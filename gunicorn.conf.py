"""gunicorn's settings, which it reads from the working directory."""

import gc
import math
import os
import shutil
import signal
from pathlib import Path

from gunicorn.glogging import Logger

# Garbage collection during the imports finds no garbage and takes a tenth of the boot time.
gc.disable()

# prometheus_client needs an empty folder at its first import, which preloading causes before any
# hook runs.
DIRECTORY = "/tmp/amani-metrics"  # nosec B108
METRICS = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", DIRECTORY))
shutil.rmtree(METRICS, ignore_errors=True)
METRICS.mkdir(parents=True)

from amani_app.telemetry import observability  # noqa: E402
from amani_app.telemetry.logs import library_logging  # noqa: E402
from amani_app.practice import fail_to_serve  # noqa: E402


def cpu_quota() -> float:
    """Return this container's CPUs: the cgroup's quota (v2, then v1), else the affinity."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        old = Path("/sys/fs/cgroup/cpu")
        limit = int((old / "cpu.cfs_quota_us").read_text())
        if limit > 0:
            return limit / int((old / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        pass
    return len(os.sched_getaffinity(0))


class Silent(Logger):
    """Log no access lines: the application logs each request."""

    def access(self, resp, req, environ, request_time):
        """Do nothing."""


bind = f"0.0.0.0:{os.environ.get('PORT', '8000')}"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", 0)) or max(2, math.ceil(cpu_quota()))
threads = int(os.environ.get("WEB_THREADS", 4))
# Each worker has its own socket. With a shared one, all kept-alive connections of a proxy may end
# at one worker while the others idle.
reuse_port = True
worker_connections = 100
# Longer than the proxy keeps an idle connection, so that the proxy closes it.
keepalive = 95
timeout = 30
graceful_timeout = 25
preload_app = True
# A tmpfs: the workers' heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm"  # nosec B108
control_socket_disable = True
logger_class = Silent
# The application reports invalid settings, so gunicorn must start despite an invalid LOG_LEVEL.
LEVEL = os.environ.get("LOG_LEVEL", "").upper()
logconfig_dict = library_logging(LEVEL if LEVEL in ("DEBUG", "WARNING", "ERROR") else "INFO")


def on_starting(server):
    """Exit immediately if the settings rehearse that failure."""
    fail_to_serve(server.app.callable.extensions["amani"].settings)


def when_ready(server):
    """Exclude the loaded objects from later collections, so that the workers share their pages."""
    gc.freeze()
    gc.enable()


def post_fork(server, worker):
    """Drop the connections inherited from the master, and start this worker's error reporting."""
    app = worker.app.callable
    parts = app.extensions["amani"]
    parts.engine.dispose(close=False)
    observability.start(app, parts.settings, parts.build, parts.provider_settings)


def post_worker_init(worker):
    """Report unready on SIGTERM, before gunicorn completes the running requests."""
    lifecycle = worker.wsgi.extensions["amani"].lifecycle
    finish = signal.getsignal(signal.SIGTERM)

    def stop(signum, frame):
        lifecycle.stop()
        finish(signum, frame)

    signal.signal(signal.SIGTERM, stop)


def child_exit(server, worker):
    """Remove the live gauges of a worker that has exited."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
