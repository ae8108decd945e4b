"""Training on two CPU processes, as `torchrun` would start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_two(worker: str, *arguments: object, timeout_s: float) -> None:
    """Run the program `worker` with `arguments` as two ranks that find each other; both must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in (0, 1):
        own = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", worker, *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, errors
