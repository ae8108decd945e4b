"""Processes that save a map and are killed, each followed by a look at the file: prints `old` or `new` for each.

`python -m tests.mapping.killed_save lines|moments FOLDER`: at each line of the writing function in turn, or at forty
random moments of a loop of saves. Processes are forked here, where there are no threads.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.mapping.map_of_points import make_map
from tests.world import CAMERA
from vslam.mapping.archive import StoredMap, load_map, save_map
from vslam.mapping.container import write_durably

OLD, NEW = (StoredMap(make_map(keyframes).map, CAMERA, "orb", "orb") for keyframes in (3, 6))
WORD = {3: "old", 6: "new"}


def in_child(work: Callable[[], None], kill_after_s: float | None = None) -> bool:
    """Run in a process of its own, killed from outside if a time is given; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def save_until_line(file: Path, count: int) -> None:
    """Save the new map, and be killed before the line of `write_durably` that is run as number `count`."""
    left = count

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code is not write_durably.__code__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    save_map(file, NEW)


def save_in_turn(file: Path) -> None:
    while True:
        for stored in (OLD, NEW):
            save_map(file, stored)


def say(file: Path) -> None:
    print(WORD[len(load_map(file).map)], flush=True)


def main(how: str, folder: Path) -> None:
    file = folder / "map.vslam"
    if how == "lines":
        count, killed = 0, True
        while killed:
            save_map(file, OLD)
            count += 1
            killed = in_child(partial(save_until_line, file, count))
            say(file)
        return
    rng = random.Random(1)
    save_map(file, OLD)
    for _ in range(40):
        in_child(partial(save_in_turn, file), rng.uniform(0.0, 0.1))
        say(file)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
