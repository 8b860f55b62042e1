"""What the popular account of optimizers claims: every claim put to the test, by rules that were fixed beforehand.

python benchmarks/claims.py           # some minutes on two cores; docs/claims.md is made from what it writes
"""

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path

from gradprix._claims_command import watched
from gradprix.explain.claims import RESULTS, run


def processor() -> str:
    """What the machine calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Test all claims, and write what was found with what it was found by."""
    began = time.perf_counter()
    with watched() as watch:
        records = [result.to_dict() for result in run(watch=watch)]
    made = {
        "command": "python benchmarks/claims.py",
        "machine": {"cores": os.cpu_count(), "cpu": processor(), "system": platform.system()},
        "versions": {name: metadata.version(name) for name in ("gradprix", "torch", "numpy", "scipy")},
        "seconds": round(time.perf_counter() - began),
    }
    RESULTS.write_text(json.dumps({**made, "claims": records}, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for record in records:
        print(f"{record['id']}: {record['verdict']}")


if __name__ == "__main__":
    main()
