"""Power cuts by the command, in full: ``python -m tests.fuzz.power_cuts``, some minutes.

Takes away each file of an ingest's last commit and of its end in turn, lost, empty, cut short and filled
with zeros, transactions too; runs the same ingest and holds every table and view to an uninterrupted run.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kvstore.store import Store
from tests import power_cuts


def main() -> int:
    """Print what went wrong; the exit code is 1 where something did."""
    folder, wrong, tried = Path(tempfile.mkdtemp(prefix="kvstore-power-")), 0, 0
    with power_cuts.loaded_once():
        world = power_cuts.World.make(folder)
        for source, before in ((world.store, world.before), (world.ended, world.store)):
            for kind, names in world.last_commit(source, before).items():
                for name in names:
                    for how in (*power_cuts.HOW, "zeros"):
                        told = _try(world, source, name, how)
                        wrong, tried = wrong + bool(told), tried + 1
                        print(
                            f"{source.name} {kind} {name.parts[-2]} {how}: {told or 'as if nothing had been'}"
                        )
    shutil.rmtree(folder)
    print(f"{tried} power cuts, {wrong} of them wrong")
    return 1 if wrong else 0


def _try(world: power_cuts.World, source: Path, name: Path, how: str) -> str:
    root = power_cuts.copy(source, source.parent / "cut")
    try:
        power_cuts.cut(root / name, how)
        world.resume(root, texts=["cat", "dog"])
        store = Store(root)
        found = power_cuts.differences(store, world.straight)
        return ", ".join(found + [finding.check for finding in store.check() if not finding.ok])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    raise SystemExit(main())
