"""Loss planes of a trained network, which the app shows as surfaces: `src/gradprix/explain/loss_planes.json`.

    python studies/loss_planes.py

It trains the `digits` network four times, which takes seconds.
"""

import json
from pathlib import Path

from gradprix import explain
from gradprix.explain import Plane, digits_path, digits_plane
from gradprix.explain.loss_plane import GRID

FILE = Path(explain.__file__).with_name("loss_planes.json")
PLANES = {"digits-path": digits_path, "digits-plane": digits_plane}


def sampled(plane: Plane) -> dict[str, object]:
    """Return a plane as data, with losses of six digits on a regular grid."""
    landscape = plane.landscape
    landscape = landscape.change(box=tuple((float(f"{a:.6g}"), float(f"{b:.6g}")) for a, b in landscape.box))
    return {
        "about": f"{landscape.about} {plane.projection_error}",
        "start": landscape.start,
        "box": landscape.box,
        "values": [[float(f"{value:.6g}") for value in row] for row in landscape.grid(GRID)[2].tolist()],
    }


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps({name: sampled(plane()) for name, plane in PLANES.items()}) + "\n")


if __name__ == "__main__":
    main()
