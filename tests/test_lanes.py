"""``.ci/lanes``: who sees only the end of what it prints knows which tests failed, and why."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LANES = Path(__file__).parents[1] / ".ci" / "lanes"

MAKEFILE = """
good:
\t@echo "===== 3 passed in 1s ====="
bad:
\t@printf 'E   assert 1 == 2\\ntests/x.py:4: AssertionError\\nFAILED tests/x.py::test_y - assert 1 == 2\\n'
\t@echo "==== 1 failed, 2 passed in 3s ===="; exit 1
worse:
\t@echo "no compiler"; exit 3
"""


def lanes(tmp_path: Path, *targets: str) -> tuple[int, list[str]]:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    # Within "make test" this make would be told that it is one of several.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["MAKE"] = f"make -f {tmp_path}/Makefile"
    ended = subprocess.run([LANES, *targets], env=environment, stdout=subprocess.PIPE, text=True)
    return ended.returncode, ended.stdout.splitlines()


def test_all_is_well(tmp_path: Path) -> None:
    status, lines = lanes(tmp_path, "good good", "good")
    assert status == 0
    assert [line.split()[:2] for line in lines[-3:]] == [["good", "ok"]] * 3
    assert "3 passed" in lines[-1]


def test_what_failed_is_told_at_the_end(tmp_path: Path) -> None:
    status, lines = lanes(tmp_path, "worse good", "bad")
    assert status == 1
    end = lines.index("==> worse failed:")
    assert all("│" in line for line in lines[:end])
    told = [line for line in lines[end:] if not line.startswith("make: ")]
    assert told[:6] == [
        "==> worse failed:",
        "no compiler",
        "==> bad failed:",
        "E   assert 1 == 2",
        "tests/x.py:4: AssertionError",
        "FAILED tests/x.py::test_y - assert 1 == 2",
    ]
    assert [line.split()[:2] for line in told[7:]] == [["worse", "FAILED"], ["good", "ok"], ["bad", "FAILED"]]
