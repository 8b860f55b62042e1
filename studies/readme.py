"""Run the first command of the README in an empty folder, and save its output.

The README's sample and the time that it states are generated from the result (`python docs/generate.py`).

    python studies/readme.py   # half a minute on two cores; writes readme.json
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from common import write

RACE = ("gradprix", "race", "digits")


def main() -> None:
    """Run the race, and write what it prints, its duration, its processor time, and the load of the machine before."""
    load = psutil.getloadavg()[0]
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", *RACE]
        environment = os.environ | {"COLUMNS": "80"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = round(time.perf_counter() - began, 1)
    print(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = round(used.ru_utime + used.ru_stime, 1)
    race = {"ran": " ".join(RACE), "race seconds": seconds, "processor seconds": processor, "load": round(load, 1)}
    write(Path(__file__).with_suffix(".json"), {**race, "output": done.stdout.splitlines()})


if __name__ == "__main__":
    main()
