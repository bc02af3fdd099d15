"""The examples of the pages on Swift, run against a real one."""

from __future__ import annotations

import re
import sys

import requests

from poller_core.backends.swift import location
from poller_core.swift import _OWN
from tests.pageshell import fences, follow
from tests.services.containers import Box
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "swift.md"


def test_examples_run(swift_aio, tmp_path, monkeypatch, capsys):
    for name, value in swift_aio.env.items():
        if name.startswith("OS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    box = Box(swift_aio, "inbox", keystone=True).create()
    example = "swift://keystone.example.org:5000/v3?inbox"
    names: dict[str, object] = {"__name__": "__main__"}
    ((line, code),) = blocks(PAGE, "python")
    assert example in code
    code = code.replace(example, box.url(user=False))
    exec(compile(code, f"{PAGE}:{line}", "exec"), names)
    box.put("sales.csv", b"12345")
    code = code.replace("poller = make_poller", "# poller = make_poller")
    exec(compile(code, f"{PAGE}:{line}", "exec"), names)
    assert capsys.readouterr().out.startswith("created inbox sales.csv 5 ")
    assert names["data"] == b"12345"
    names["poller"].close()  # type: ignore[attr-defined]
    box.remove()
    box.close()


def test_what_is_told_is_what_there_is():
    text = PAGE.read_text()
    table = text.split("## Options")[1].split("## ")[0]
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert told == set(_OWN)
    for name in location._KNOWN:
        assert f"[&{name}=" in text


#: What a page asks programs of OpenStack for that are not installed here: the same requests to one server.
PROGRAM = """#!{python}
import sys, requests
assert sys.argv[1:] == {arguments!r}, sys.argv
requests.request({method!r}, {url!r}, headers={headers!r}, timeout=60).raise_for_status()
"""


def test_how_to_use_an_application_credential(swift_aio, tmp_path):
    page = ROOT / "docs" / "how-to" / "swift-application-credentials.md"
    assert all("poller_prefect" in one.text or one.file for one in fences(page) if one.language == "python")
    env = swift_aio.env
    box = Box(swift_aio, "inbox", keystone=True).create()
    box.put("sales.csv", b"12345")
    url = f"{env['OS_AUTH_URL']}/users/{env['AIO_USER_ID']}/application_credentials"
    wanted = {"application_credential": {"name": "poller-2026", "roles": [{"name": "reader"}]}}
    answer = requests.post(url, json=wanted, headers={"X-Auth-Token": box._token}, timeout=60)
    made = answer.json()["application_credential"]
    reader = f"{env['AIO_PROJECT_ID']}:{env['AIO_USER_ID']}"
    requests_of = {
        "openstack": (
            ["application", "credential", "delete", "poller-2026"],
            "DELETE",
            f"{url}/{made['id']}",
            {},
        ),
        "swift": (
            ["post", "inbox", "--read-acl", reader],
            "POST",
            f"{box.storage_url}/inbox",
            {"X-Container-Read": reader},
        ),
    }
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, (arguments, method, place, headers) in requests_of.items():
        text = PROGRAM.format(
            python=sys.executable,
            arguments=arguments,
            method=method,
            url=place,
            headers={"X-Auth-Token": box._token, **headers},
        )
        (programs / name).write_text(text)
        (programs / name).chmod(0o700)
    follow(
        page,
        tmp_path / "page",
        others=["console", "python"],
        replace={
            "https://keystone.example.org:5000/v3": env["OS_AUTH_URL"],
            "keystone.example.org:5000": env["OS_AUTH_URL"].split("/")[2],
            "21dced0fd20347869b93710d2b98aae0": made["id"],
            "the-secret-that-was-shown": made["secret"],
            "/var/lib/poller": f"{tmp_path}/lib",
        },
        environ={"PROJECT_ID": env["AIO_PROJECT_ID"], "USER_ID": env["AIO_USER_ID"]},
        path=[programs],
    )
    box.remove()
    box.close()
