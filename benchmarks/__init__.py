"""Measurements as ratios in one run: `python -m benchmarks NAME …`."""

import resource
from pathlib import Path


def peak_mib() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on from the process that started this one, however large that was.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes
