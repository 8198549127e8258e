"""What `--json` prints, as types: docs/json.md is written from them, and a test holds what a real node says against
them.

Fields may be added. None is removed or changes its meaning but in a new major version. Times end in `_s` (seconds;
since 1970 where it is a moment) or `_ms`, sizes in `_bytes`; peers and meshes are written as `12D3KooW...`; `null` is
a number that is not known.
"""

from __future__ import annotations

from atmo.cli.shapes.answers import Answer, Said
from atmo.cli.shapes.decisions import Decision, Route
from atmo.cli.shapes.health import Health, Version
from atmo.cli.shapes.keys import Keys, NewKey, RevokedKey
from atmo.cli.shapes.measures import Bench, Relevance
from atmo.cli.shapes.members import Invited, Joined, Left, Made, Members, Revoked
from atmo.cli.shapes.mesh import Mesh
from atmo.cli.shapes.models import (
    Collected,
    Imported,
    Inspected,
    Marked,
    Models,
    Pulled,
    Removed,
    VerifiedModels,
    Whereabouts,
)
from atmo.cli.shapes.nodes import LogLine, Rotated, Started, Status, Stopped
from atmo.cli.shapes.receipts import CheckedReceipt, Receipt, Receipts
from atmo.cli.shapes.settings import Checked, ConfigPath, Setting, Settings, Written
from atmo.cli.shapes.shape import Failed, Shape

__all__ = ["COMMANDS", "ELSEWHERE", "Failed", "LogLine", "Said"]

# By command. Those of `atmo mesh watch` are events, which docs/watch.md lists.
COMMANDS: dict[str, type[Shape]] = {
    "node": Status,
    "node start": Started,
    "node stop": Stopped,
    "node status": Status,
    "node logs": LogLine,
    "node rotate": Rotated,
    "ask": Answer,
    "chat": Said,
    "mesh": Mesh,
    "mesh create": Made,
    "mesh invite": Invited,
    "mesh join": Joined,
    "mesh leave": Left,
    "mesh members": Members,
    "mesh revoke": Revoked,
    "models": Models,
    "models list": Models,
    "models import": Imported,
    "models pull": Pulled,
    "models inspect": Inspected,
    "models rm": Removed,
    "models gc": Collected,
    "models verify": VerifiedModels,
    "models share": Marked,
    "models pin": Marked,
    "models where": Whereabouts,
    "route": Route,
    "explain": Decision,
    "bench": Bench,
    "eval routing": Relevance,
    "keys": Keys,
    "keys create": NewKey,
    "keys list": Keys,
    "keys revoke": RevokedKey,
    "config": Settings,
    "config show": Settings,
    "config get": Setting,
    "config set": Written,
    "config unset": Written,
    "config path": ConfigPath,
    "config edit": Checked,
    "config check": Checked,
    "doctor": Health,
    "receipt list": Receipts,
    "receipt show": Receipt,
    "receipt verify": CheckedReceipt,
    "version": Version,
}
# Those whose objects are described elsewhere.
ELSEWHERE = {"mesh watch": "docs/watch.md"}
