"""What runs the pages finds what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pageshell import ROOT, PageError, fences, follow

GOOD = """
# A page

Install it:

```sh
python3 -m venv venv
. venv/bin/activate
pip install '/path/to/checkout[airflow]'
```

Put this into `sub/hello.py`:

```python
import sys, time

print("hello", sys.argv[1], flush=True)
time.sleep(float(sys.argv[2]))
print("bye", flush=True)
```

```sh
name=you
python3 sub/hello.py $name 0
```

```text
hello you
bye
```

It runs while other things are done, in the same shell:

```sh
python3 sub/hello.py $name 1000 &
```

```text
hello …
```

```sh
cd sub
kill -9 $!
wait
echo "in $(pwd)"
ls no-such-file || echo "ls gave $?"
```

```text
in …/sub
…
ls gave 2
```
"""


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def test_a_page_that_is_right(tmp_path):
    follow(page(tmp_path, GOOD), tmp_path / "work")
    assert (tmp_path / "work" / "sub" / "hello.py").exists()
    found = fences(tmp_path / "page.md")
    assert [one.file for one in found] == [None, "sub/hello.py", *[None] * 6]
    assert GOOD.splitlines()[found[1].line - 1] == "import sys, time"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("python3 sub/hello.py $name 0\n", "python3 sub/helo.py $name 0\n", "gave 2"),
        ("hello you\n", "hello You\n", "should have been printed"),
        ("bye\n```\n\nIt", "```\n\nIt", "should have been printed"),
        ("[airflow]", "[airflw]", "no such extras"),
        ("Put this into `sub/hello.py`:", "Write:", "nobody runs this block"),
        ("```text\nin", "```console\nin", "nobody runs this block"),
        ("```sh\ncd", "  ```sh\ncd", "at the margin"),
        (" || echo", "; echo", r"line 47: .*no-such-file. gave 2"),
    ],
)
def test_a_page_that_is_wrong(tmp_path, old, new, says):
    assert GOOD.count(old) == 1
    wrong = page(tmp_path, GOOD.replace(old, new))
    with pytest.raises(PageError, match=says):
        follow(wrong, tmp_path / "work", patience=2)


def test_what_is_named_must_be_there(tmp_path):
    path = page(tmp_path, "```sh\nmake everything\ntrue\n```\n")
    follow(path, tmp_path / "one", leave=[r"make "])
    with pytest.raises(PageError, match=r"no command fits.*reboot"):
        follow(path, tmp_path / "two", leave=[r"make ", r"reboot"])


def test_a_command_without_end(tmp_path):
    text = (
        "```sh\npython3 -m poller_core.cli watch . \\\n    --exec true  # for ever\necho there\n```\n"
        "\n```text\nthere\n```\n"
    )
    environ = {"PYTHONPATH": str(ROOT), "POLLER_STATE": "state.db"}
    follow(page(tmp_path, text), tmp_path / "one", endless=["python3 -m poller"], environ=environ)
    wrong = page(tmp_path, text.replace("--exec", "--exce --nope"))
    with pytest.raises(PageError, match="gave 2"):
        follow(wrong, tmp_path / "two", endless=["python3 -m poller"], environ=environ)
