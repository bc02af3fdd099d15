"""Runs a page of the documentation as a reader would: writes its files, runs its commands, looks at what
is printed.

A page is read from top to bottom. What counts are its fences, and the paragraph before each:

* A fence of any language after a paragraph that ends in ``into `NAME`:`` ("Put this into `sales.py`:") is a
  **file**. It is written, in the directory that the commands before it have changed to, unless the name is
  absolute or begins with ``~``; what was there is replaced.
* A fence ``sh`` holds **commands**. They are run by one bash for the whole page, so variables, ``cd`` and
  ``&`` work as in a terminal. A command that fails fails the page (write ``cmd || echo "it gave $?"`` where
  that is meant).
* A fence ``text`` is **what is printed**, on standard output and standard error, by the commands since the
  last fence ``sh`` or ``text`` before it, or by what they have left running. It is waited for, and all of it
  has to be there: ``…`` stands for anything within a line, and, alone on a line, for any lines. Two spaces or
  more, as between columns, stand for as many as there are. Output that no fence shows is not looked at. Nor
  is what the shell itself says of jobs (``[1] 4711``, ``Killed``): shells differ there.
* Other fences are an error, so nothing is left out unseen, unless the caller names their language as
  ``others``: they are run elsewhere (``python``: by ``tests/test_docs.py``), or can't be (``toctree``).

What runs is the environment of the tests: ``python3 -m venv DIR`` and ``pip install …`` are stand-ins; the
latter looks whether this package is what is installed, with extras that there are. With
``POLLER_TEST_INSTALL=1`` in the environment they are the real ones, as a new user has it (minutes, and a
network). ``/path/to/checkout`` is this checkout in any case. ``HOME`` is a directory of its own, and no
variable of the user's poller, Airflow or Prefect is seen.

A page is run by :func:`follow`, and all that it started is ended with it. Commands that can't be run in
a test are named by the caller (``leave``), and so are those that run until Ctrl-C, which they get in the end
(``endless``); a pattern that fits no command is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"\binto `([^`]+)`:$")
#: What is not the user's, but the test's.
FOREIGN = ("POLLER_", "AIRFLOW_", "PREFECT_", "OS_", "ST_", "VIRTUAL_ENV", "PYTHON")
#: What shells say of jobs.
JOB = re.compile(r"\[\d+\][-+ ]? *\S.*|.*: line \d+: +\d+ (Killed|Terminated|Interrupt).*")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

# Reads the names of files with commands, and runs them in this shell. Standard input is nobody's.
LOOP = """
set -m -E
trap 'echo "line $LINENO: \\`$BASH_COMMAND\\` gave $?" >>"$PAGE_NOTES/failures"' ERR
if [ -z "${POLLER_TEST_INSTALL:-}" ]; then
    python3() {
        if [ "${1:-} ${2:-}" = "-m venv" ]; then
            "$PAGE_PYTHON" "$PAGE_SHELL" venv "${@:3}"
        else
            command python3 "$@"
        fi
    }
    pip() { "$PAGE_PYTHON" "$PAGE_SHELL" pip "$@"; }
fi
while IFS= read -r page_block; do
    . "$page_block"
    { jobs; } >/dev/null 2>&1
    echo >>"$PAGE_NOTES/done"
done <"$PAGE_NOTES/blocks"
"""


class PageError(AssertionError):
    """A page does not do what it says."""


class Fence(NamedTuple):
    """A block of a page."""

    line: int  #: of its first line of text
    language: str
    text: str
    file: str | None  #: whose content it is, if so


def fences(page: Path) -> list[Fence]:
    """All blocks of a page.

    :raises PageError: if there is one that is not found so: indented, or not ended.
    """
    text = page.read_text()
    found, end = [], 0
    for match in FENCE.finditer(text):
        before = " ".join(text[end : match.start()].rstrip().rpartition("\n\n")[2].split())
        name = FILE.search(before)
        line = text.count("\n", 0, match.start()) + 2
        found.append(Fence(line, match[1].strip(), match[2], name[1] if name else None))
        end = match.end()
    marks = len(re.findall(r"^\s*```", text, re.MULTILINE))
    if marks != 2 * len(found):
        raise PageError(
            f"{page}: of {marks} lines with ``` only {2 * len(found)} begin or end a block at the margin"
        )
    return found


class PageShell:
    """A terminal: a directory, a bash in it, and what was printed.

    :param folder: where the page's commands begin; made if it is not there.
    :param environ: more variables.
    :param path: directories to find programs in before all others.
    :param patience: seconds that a block of commands, or what it prints, may take.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str] | None = None,
        path: Collection[Path] = (),
        patience: float = 60,
    ) -> None:
        # Not at the top: the stand-ins are this file, run as a script by itself.
        from tests.services.processes import Processes

        self.folder = folder
        self.patience = patience
        folder.mkdir(parents=True, exist_ok=True)
        self._notes = folder.parent / f"{folder.name}-shell"
        self._notes.mkdir()
        home = self._notes / "home"
        home.mkdir()
        real = bool(os.environ.get("POLLER_TEST_INSTALL"))
        usual = os.environ.get("PATH", os.defpath)
        places = [*path, *([] if real else [Path(sys.executable).parent]), usual]
        env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        env |= {
            "HOME": str(home),
            "PATH": os.pathsep.join(map(str, places)),
            "PAGE_NOTES": str(self._notes),
            "PAGE_SHELL": __file__,
            "PAGE_PYTHON": sys.executable,
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONUNBUFFERED": "1",
            **({"POLLER_TEST_INSTALL": "1"} if real else {}),
            **(environ or {}),
        }
        self.home = home
        self.environ = env
        self._processes = Processes(self._notes, env)
        self._blocks = 0
        self._seen = 0
        for name in ("done", "failures"):
            (self._notes / name).touch()
        os.mkfifo(self._notes / "blocks")

    def __enter__(self) -> Self:
        self._processes.launch("bash", ["bash", "-c", LOOP, "bash"], self.folder)
        try:
            self._wait(self._connected, "bash did not start")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> bool:
        with contextlib.suppress(OSError):
            self._input = os.open(self._notes / "blocks", os.O_WRONLY | os.O_NONBLOCK)
            return True
        return False

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > end or not self._processes.alive("bash"):
                raise PageError(f"{what}; printed:\n{self.printed()}")
            time.sleep(0.02)

    def printed(self) -> str:
        """What was printed since it was last looked at, without colours and the shell's own words."""
        data = (self._notes / "bash.log").read_bytes()[self._seen :]
        lines = ESCAPE.sub("", data.decode(errors="replace")).replace("\r\n", "\n").splitlines(keepends=True)
        return "".join(line.rstrip() + "\n" for line in lines if not JOB.fullmatch(line.rstrip()))

    def _pass_over(self) -> None:
        self._seen = (self._notes / "bash.log").stat().st_size

    def run(self, commands: str, line: int = 1) -> None:
        """Run commands to their end; what was printed before is forgotten.

        :param line: their number in the page, for errors.
        """
        self._pass_over()
        self._blocks += 1
        block = self._notes / f"block-{self._blocks}.sh"
        block.write_text("\n" * (line - 1) + commands)
        os.write(self._input, f"{block}\n".encode())
        done = self._notes / "done"
        self._wait(lambda: done.stat().st_size >= self._blocks, f"line {line}: this did not end:\n{commands}")
        self._check()

    def begin(self, command: str, line: int = 1) -> None:
        """Start a command that runs until :meth:`interrupt`.

        Returns when it has printed something, or has had time to.
        """
        # What is around it survives Ctrl-C, and tells how it ended.
        self.run(f"{{ trap : INT; {command.rstrip()}\n}} &\n", line)
        end = time.monotonic() + 15
        while self._jobs() and time.monotonic() < end:
            time.sleep(0.02)
            if self.printed():
                # It may be why it ends, which takes it a moment.
                end = min(end, time.monotonic() + 1)
                self._pass_over()
        self._check()

    def _check(self, *, interrupted: bool = False) -> None:
        failures = self._notes / "failures"
        lines = failures.read_text().splitlines()
        failures.write_text("")
        if failed := [one for one in lines if not (interrupted and one.endswith(" gave 130"))]:
            raise PageError("\n".join([*failed, f"printed:\n{self.printed()}"]))

    def shows(self, text: str, line: int = 1) -> None:
        """Wait until what was printed is this.

        :raises PageError: if it is something else when time is up.
        """
        wanted = re.compile(pattern(text))
        what = f"line {line}: this should have been printed:\n{text}\nbut"
        idle: float | None = None

        def printed() -> bool:
            nonlocal idle
            if wanted.fullmatch(self.printed()):
                return True
            if not self._jobs():
                # Nobody prints any more, but for what a job may have left behind.
                idle = idle or time.monotonic()
                if time.monotonic() > idle + 5:
                    raise PageError(f"{what}; printed:\n{self.printed()}")
            return False

        self._wait(printed, what)
        self._pass_over()

    def write(self, name: str, text: str) -> None:
        """Write a file, as an editor would."""
        import psutil

        here = Path(psutil.Process(self._processes.pid("bash")).cwd())
        path = here / (str(self.home) + name[1:] if name.startswith("~/") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def interrupt(self) -> None:
        """Ctrl-C for all that is running, and wait for its end."""
        for group in self._jobs():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGINT)
        self._wait(lambda: not self._jobs(), "what was interrupted did not end")
        self._check(interrupted=True)

    def _jobs(self) -> list[int]:
        """The jobs of the shell: each the leader of a group of its own."""
        import psutil

        found = []
        for child in psutil.Process(self._processes.pid("bash")).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
        return found

    def close(self) -> None:
        """End whatever was started."""
        import psutil

        with contextlib.suppress(AttributeError):
            os.close(self._input)
            del self._input
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error, KeyError):
            left = psutil.Process(self._processes.pid("bash")).children(recursive=True)
        for end, seconds in ((psutil.Process.terminate, 20), (psutil.Process.kill, 5)):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    end(process)
            _, left = psutil.wait_procs(left, timeout=seconds)
        self._processes.down()


def pattern(text: str) -> str:
    """The expression for what a block shows."""
    lines = []
    for line in text.splitlines():
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            parts = map(re.escape, line.rstrip().split("…"))
            # Columns are as wide as what is in them.
            lines.append(re.sub(r"(?:\\ ){2,}", r" {2,}", r"[^\n]*?".join(parts)) + r"\n")
    return "".join(lines)


def parts(
    fence: Fence, leave: Collection[str], endless: Collection[str], unused: set[str]
) -> Iterator[tuple[int, str, bool]]:
    """A block's commands as they are to be run, each with its line, and whether it runs until Ctrl-C.

    :param unused: patterns that fitted nothing yet; those that do are taken out.
    """

    def fits(patterns: Collection[str], command: str) -> bool:
        found = {one for one in patterns if re.match(one, command)}
        unused.difference_update(found)
        return bool(found)

    begin, kept, command = fence.line, "", ""
    for number, line in enumerate(fence.text.splitlines(keepends=True), fence.line):
        command += line
        if line.endswith("\\\n"):
            continue
        if fits(leave, command):
            kept += "\n" * command.count("\n")  # so that errors name the page's lines
        elif fits(endless, command):
            if kept.strip():
                yield begin, kept, False
            yield number + 1 - command.count("\n"), command, True
            begin, kept = number + 1, ""
        else:
            kept += command
        command = ""
    if (kept + command).strip():
        yield begin, kept + command, False


def follow(
    page: Path,
    folder: Path,
    *,
    others: Collection[str] = (),
    leave: Collection[str] = (),
    endless: Collection[str] = (),
    before: str = "",
    replace: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Collection[Path] = (),
    patience: float = 60,
) -> None:
    """Do what a page says.

    :param others: languages of fences that are passed over.
    :param leave: patterns of lines with commands that are passed over.
    :param endless: patterns of lines with commands that run until Ctrl-C, which they get in the end.
    :param before: commands to be run first, for what the page takes for granted.
    :param replace: what to put in place of texts of the page, wherever they are.
    :param environ: more variables.
    :param path: directories to find programs in before all others.
    :param patience: seconds that a block of commands, or what it prints, may take.
    :raises PageError: if it doesn't work as the page says, or a fence or a pattern is of no use.
    """
    unused = {*leave, *endless}
    replaced = {"/path/to/checkout": str(ROOT), **(replace or {})}

    def real(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    with PageShell(folder, environ=environ, path=path, patience=patience) as shell:
        shell.run(before)
        for fence in fences(page):
            if fence.file is not None:
                shell.write(real(fence.file), real(fence.text))
            elif fence.language == "text":
                shell.shows(real(fence.text), fence.line)
            elif fence.language == "sh":
                for line, block, runs_on in parts(fence, leave, endless, unused):
                    (shell.begin if runs_on else shell.run)(real(block), line)
            elif fence.language not in others:
                raise PageError(
                    f"{page}:{fence.line}: nobody runs this block ({fence.language or 'no language'})"
                )
        shell.interrupt()
    if unused:
        raise PageError(f"{page}: no command fits {sorted(unused)}")


# -- stand-ins ---------------------------------------------------------------


def _venv(arguments: list[str]) -> None:
    """One that is the environment of the tests, as far as anybody can see."""
    (directory,) = arguments
    Path(directory).symlink_to(sys.prefix)


def _pip(arguments: list[str]) -> None:
    if arguments[:1] != ["install"] or len(arguments) < 2:
        sys.exit(f"pip: not known here: {arguments}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = re.compile(rf"(?:{re.escape(project['name'])}|{re.escape(str(ROOT))}|\.)(?:\[([\w,]+)\])?")
    found = [match for one in arguments[1:] if (match := ours.fullmatch(one))]
    others = [one for one in arguments[1:] if not ours.fullmatch(one)]
    if wrong := [one for one in others if not re.fullmatch(r"[a-z][\w-]*[<>=!~]=?[\d.*]+", one)]:
        sys.exit(f"pip: neither this package nor a release of another: {wrong}")
    extras = {extra for match in found for extra in (match[1] or "").split(",") if extra}
    if unknown := extras - set(project["optional-dependencies"]):
        sys.exit(f"pip: there are no such extras: {unknown}")
    if not found:
        sys.exit(f"pip: this package is not among {arguments}")


if __name__ == "__main__":
    {"venv": _venv, "pip": _pip}[sys.argv[1]](sys.argv[2:])
