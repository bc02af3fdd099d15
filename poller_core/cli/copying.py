"""``poller copy``: from one state into another, of whichever kind each is.

Guarantees: what is copied is of one moment, and a target is copied whole or not at all; ids
of events, claims and offsets stay what they are; the state that is copied from is only read.

Does not guarantee: that somebody who still uses the old state is noticed. What is done with
it later is not in the new one.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InvalidOption
from ..state import open_store
from ..state.copying import copy_target
from .app import Common, command
from .manage import Where
from .targets import Which, listed, open_state


@command("copy")
def copy(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="STATE",
            show_default=False,
            help="The other state, as for --state. It is made if it is not there.",
        ),
    ],
    common: Common,
    which: Which,
    url: Where = None,
) -> int:
    """Copy targets into another state: snapshot, events, consumers, claims, dead letters.

    Stop what uses the old state before, and have it use the new one afterwards. A target that is there
    already is left as it is, and is an error.

    \b
      poller copy --to postgresql+psycopg://poller@db.example.org/poller
    """
    output = common.output()
    with open_state(common) as store, open_store(to) as other:
        if other.private:
            raise InvalidOption("--to: that is a state which ends with the process; give a path or a URL")
        targets = listed(store, url, which)
        there = {target.digest for target in other.targets()}
        twice = [target.url for target in targets if target.digest in there]
        if twice:
            raise InvalidOption(
                f"--to: {other.url} has {', '.join(twice[:10])} already, with these options; 'poller forget' "
                f"there, or name those to copy"
            )
        for target in targets:
            copy_target(store, target, other)
        if output.json:
            output.document(
                {"from": store.url, "to": other.url, "targets": [target.digest for target in targets]}
            )
        else:
            for target in targets:
                output.line(
                    f"copied {target.url}: {target.entries} entries, events up to {target.last_seq}, "
                    f"{len(store.consumers.all(target.id))} consumers"
                )
    return 0
