"""The examples for Prefect in README and docs are run, block by block, on a real one.

What ends in ``if __name__ == "__main__":`` is a script: it is started as one, and once its poll has looked, a
file lands, and a run of each of its other deployments has to complete. The rest runs here, in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import test_docs
from tests.prefect.tools import using
from tests.services.prefect_host import PrefectHost
from tests.test_docs import ROOT, blocks, examples

PAGES = [page for page in test_docs.PAGES if examples(page, "prefect")]
MAIN = 'if __name__ == "__main__":'
SCRIPTS = [(page, line, code) for page in PAGES for line, code in examples(page, "prefect") if MAIN in code]


#: The pages whose blocks end with something to be seen; the others only define and save.
SAYS = "prefect"


def test_there_are_examples() -> None:
    assert {page.stem for page in PAGES} >= {"README", SAYS, "alarms", "one-run-per-file"}
    assert len(SCRIPTS) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "line", "code"), SCRIPTS, ids=[f"{one[0].stem}:{one[1]}" for one in SCRIPTS]
)
def test_scripts(prefect_host: PrefectHost, inbox: Path, page: Path, line: int, code: str) -> None:
    assert "/data/inbox" in code
    name = f"{page.stem}_{line}"
    before = {one["id"]: one["updated"] for one in prefect_host.deployments()}
    prefect_host.python(code.replace("/data/inbox", str(inbox)), name=name)

    def made() -> dict[str, dict[str, Any]]:
        """The script's deployments, by id, once there is a poll among them."""
        prefect_host.check(name)
        if "being served" not in prefect_host.log(name):
            return {}
        there = prefect_host.deployments()
        return {one["id"]: one for one in there if before.get(one["id"]) != one["updated"]}

    deployments = prefect_host.until("its deployments", made, 200)
    polls = [one for one in deployments.values() if "url" in one["parameters"]]
    work = [one for one in deployments.values() if "url" not in one["parameters"]]
    assert polls
    assert work

    def looked() -> bool:
        done = prefect_host.flow_runs(deployment=polls[0]["id"], states=["Completed"])
        return bool(done)

    # It would by itself, after its interval.
    prefect_host.run_deployment(polls[0]["id"])
    prefect_host.until("the first look", looked, 200)
    (inbox / "a.csv").write_text("abc")
    prefect_host.run_deployment(polls[0]["id"])
    for one in work:

        def completed(deployment: str = one["id"]) -> bool:
            runs = prefect_host.flow_runs(deployment=deployment)
            assert not [run for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
            return any(run["state_type"] == "COMPLETED" for run in runs)

        prefect_host.until("its run", completed, 200)
    assert prefect_host.stop(name, 60) == 0


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # what Prefect notifies with imports it
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "README"], ids=lambda page: page.stem
)
def test_the_rest(
    prefect_host: PrefectHost,
    inbox: Path,
    page: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A deployment says in which file its flow is. Nothing runs these.
    names: dict[str, object] = {"__name__": "__main__", "__file__": str(inbox.with_suffix(".py"))}
    with using(prefect_host):
        for line, code in examples(page, "prefect"):
            if MAIN in code:
                continue
            text = code if "as_yaml()" in code else code.replace("/data/inbox", str(inbox))
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
    if page.stem == "alarms":
        # Not to be left: they would ring when polls of other tests fail.
        made = {one["name"]: one["id"] for one in prefect_host.automations()}
        for alarm in ("a poll failed", "no poll"):
            prefect_host.ask("DELETE", f"automations/{made[alarm]}")
    if page.stem != SAYS:
        return
    said = capsys.readouterr().out
    assert "Completed\n" in said
    # What the page says is printed is what is printed.
    ((_, printed),) = blocks(ROOT / "docs" / "prefect.md", "yaml")
    assert printed in said
