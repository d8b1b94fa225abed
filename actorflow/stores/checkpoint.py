"""When the WAL is copied into the database file, and how a database file without its WAL is told from a whole one.

SQLite's own checkpoint after a COMMIT is off: it swallows a failed fsync, and the data are gone. Ours runs on the writer's
connection (two connections that write and checkpoint at once corrupt the file, SQLite 3.7.0 to 3.51.2), after the batch was
acknowledged, and looks at what it did.

Each one is followed by a commit that raises the store's *generation*, which goes to the WAL, and then to the sidecar. So while
the store is held the database file alone is always older than the sidecar says: whoever starts it without its WAL is refused.
The order matters: a crash between the two leaves the sidecar behind, which is harmless; the other way round a sound store
would be refused. For the same reason that commit is written with full fsync, whatever the durability: were it lost in a
power cut, the sidecar would be ahead.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from attrs import define

from actorflow.crashpoints import crashpoint
from actorflow.stores.schema import set_synchronous
from actorflow.stores.statements import SQL
from actorflow.stores.writer import begin_immediate, roll_back

PAGES = 4_000
"""How many pages the WAL may hold before it is copied: 16 MiB, as reading through a long WAL is slow and so is copying it."""

BATCHES = 128
"""After how many batches that are synced it is copied, however short it is: a sync of a file that grows takes twice as long, as
the file system must sync its own journal, too; and a WAL that was copied is written from its beginning, in place. Copying so
little takes as long as a few commits."""

WAL_BYTES = PAGES * 4_096
_ROWS_MIN, _ROWS_MAX = 32, 200_000


@define(eq=False, repr=False)
class Checkpoints:
    """Counts what is written and copies it in time. Called on the writer's thread, `due` on any."""

    path: str
    durability: str
    fence: int
    remember: Callable[[int], None]  #: tells the sidecar a generation
    rows: int = 0
    batches: int = 0
    rows_max: int = PAGES  #: learned: how many rows fill `PAGES` pages of the WAL

    def count(self, rows: int, wal_bytes: int) -> bool:
        """Note that a batch of *rows* was written and that the WAL has *wal_bytes*; whether it should be copied now.

        SQLite does not tell how many pages the WAL holds, and its size is that of its fullest moment: so the
        pages are guessed from the rows, by what the last checkpoint said. A WAL twice as long as it should be is copied too.
        """
        self.rows += rows
        self.batches += 1
        if self.batches >= BATCHES and self.durability == "full":
            return True
        return self.rows >= self.rows_max or (wal_bytes >= 2 * WAL_BYTES and self.rows >= _ROWS_MIN)

    def passive(self, db: sqlite3.Connection) -> None:
        """Copy what no reader holds back. Waits for nobody."""
        crashpoint("checkpoint.before")
        _, pages, _ = db.execute("pragma wal_checkpoint(passive)").fetchone()
        crashpoint("checkpoint.after")
        if pages > 0 and self.rows:
            self.rows_max = max(_ROWS_MIN, min(_ROWS_MAX, self.rows * PAGES // pages))
        self.rows = self.batches = 0
        self.raise_generation(db)

    def truncate(self, db: sqlite3.Connection) -> None:
        """Copy all and empty the WAL, unless readers hold it."""
        db.execute("pragma wal_checkpoint(truncate)").fetchone()
        self.rows = self.batches = 0

    def raise_generation(self, db: sqlite3.Connection) -> None:
        """Make the database file alone older than the sidecar."""
        set_synchronous(db, self.path, "full")
        try:
            begin_immediate(db, busy_s_max=0.0)
            raised = db.execute(SQL["raise_generation"], {"fence": self.fence}).fetchall()
            db.execute("commit")
        finally:
            roll_back(db)
            set_synchronous(db, self.path, self.durability)
        crashpoint("checkpoint.raised")
        if raised:
            self.remember(raised[0][0])
