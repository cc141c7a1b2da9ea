from __future__ import annotations

import subprocess
import sys
import threading
from array import array
from pathlib import Path

from snapd.disk.reliance import Reliance

OTHER_PROCESS = """
import sys
from pathlib import Path
from snapd.disk.reliance import Reliance
reliance = Reliance(Path(sys.argv[1]))
reliance.begin([1])
print("begun", flush=True)
sys.stdin.readline()
with reliance.removing() as is_wanted:
    print(is_wanted is not None, flush=True)
reliance.end(reliance._wanted[0])
print("ended", flush=True)
sys.stdin.readline()
"""


def test_running_pulls_say_what_must_stay(tmp_path: Path) -> None:
    reliance = Reliance(tmp_path / "locks")
    first, second = array("Q", [1, 5]), array("Q", [1, 5])
    reliance.begin(first)
    reliance.begin(second)
    reliance.end(first)
    with reliance.removing() as is_wanted:
        assert is_wanted is not None
        assert [is_wanted(number) for number in (0, 1, 5, 6)] == [False, True, True, False]
    reliance.end(second)
    assert not reliance.is_wanted(1)
    reliance.close()


def test_nobody_begins_while_blobs_are_removed(tmp_path: Path) -> None:
    reliance = Reliance(tmp_path / "locks")
    begun = threading.Event()

    def begin() -> None:
        reliance.begin([7])
        begun.set()

    thread = threading.Thread(target=begin)
    with reliance.removing():
        thread.start()
        assert not begun.wait(0.1)
    thread.join(10)
    assert reliance.is_wanted(7)
    reliance.close()


def test_another_process_that_relies_on_blobs_keeps_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    reliance = Reliance(path)
    command = [sys.executable, "-c", OTHER_PROCESS, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with reliance.removing() as is_wanted:
            assert is_wanted is None
        reliance.begin([3])
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "False\n"
        assert other.stdout.readline() == "ended\n"
        with reliance.removing() as is_wanted:
            assert is_wanted is not None
            assert is_wanted(3)
        reliance.end(reliance._wanted[0])
        other.stdin.write("\n")
        other.stdin.flush()
    reliance.close()


def test_a_dead_process_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        other.kill()
    reliance = Reliance(path)
    with reliance.removing() as is_wanted:
        assert is_wanted is not None
    reliance.close()
