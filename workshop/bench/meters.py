"""Measurements with wrk (HTTP) and pgbench (SQL): rate and latency percentiles."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from workshop.bench.postgres import PostgresServer

SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE = 600.0


@dataclass(frozen=True)
class Reading:
    """One measurement: operations, seconds, and latency percentiles in milliseconds."""

    done: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Operations per second, of all clients together."""
        return self.done / self.seconds


@dataclass(frozen=True)
class Series:
    """The measurements of one load, one for each round."""

    readings: Sequence[Reading]

    def figures(self) -> dict[str, float]:
        """Medians over all rounds, as JSON values."""
        each = self.readings
        return {
            "per_second": round(statistics.median(r.rate for r in each), 1),
            "p50_ms": round(statistics.median(r.p50_ms for r in each), 2),
            "p99_ms": round(statistics.median(r.p99_ms for r in each), 2),
        }


def ratio(ours: Series, baseline: Series, what: str = "rate") -> dict[str, float]:
    """The ratio of `ours` to `baseline` in each round: its median, least and most."""
    pairs = zip(ours.readings, baseline.readings, strict=True)
    found = sorted(getattr(a, what) / getattr(b, what) for a, b in pairs)
    return {
        "median": round(statistics.median(found), 3),
        "least": round(found[0], 3),
        "most": round(found[-1], 3),
    }


def ask(port: int, path: str, connections: int, seconds: float, *words: str) -> Reading:
    """Run wrk for `seconds`, or until its script stops. Raises `DeployError` if a request fails."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout=20s"]
    output = _run([*argv, "-s", str(SCRIPT), f"http://127.0.0.1:{port}{path}", "--", *words])
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise DeployError(f"{path}: {found['errors']} of {found['requests']} requests failed")
    return Reading(found["requests"], found["seconds"], found["p50_ms"], found["p99_ms"])


def transact(
    server: PostgresServer, script: str, clients: int, transactions: int, **variables: int
) -> Reading:
    """Run pgbench, `transactions` for each client. Raises `DeployError` if one fails."""
    with tempfile.TemporaryDirectory(prefix="amani-pgbench-") as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        given = [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        argv = [str(server.programs / "pgbench"), "-n", "-M", "prepared", "-j2", f"-c{clients}"]
        argv += [f"-t{transactions}", "-l", f"--log-prefix={folder}/log", "-f", str(file), *given]
        output = _run([*argv, server.url()])
        logs = [log.read_text().splitlines() for log in Path(folder).glob("log.*")]
        lines = [line.split() for log in logs for line in log]
    if "(0.000%)" not in output or len(lines) != clients * transactions:
        raise DeployError(f"pgbench did not complete all transactions:\n{output}")
    milliseconds = [int(line[2]) / 1000 for line in lines]
    cuts = statistics.quantiles(milliseconds, n=100)
    rate = next(float(line.split()[2]) for line in output.splitlines() if line.startswith("tps"))
    return Reading(len(lines), len(lines) / rate, cuts[49], cuts[98])


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise DeployError(f"{argv[0]} failed: {done.stderr[-2000:]}")
    return done.stdout
