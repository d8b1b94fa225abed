"""A soak: a real service over a real file, under a mixed load and random faults, for as long as one likes; then a verdict.

`python -m tests.soak --for 10m --seed 7` (or `make soak`) kills it, ends it, stops and wakes it, starts a second one beside it,
and holds the file's write lock, at moments drawn by the seed. Meanwhile a ledger outside of the store keeps what callers were
told and which effects the steps had. At the end everything that was accepted must have come to the end that its number says,
once, and the store's own rows must be sound. The exit code is 1 if anything is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field

from actorflow.clock import seconds
from actorflow.records import Run, RunQuery
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.invariants import replays, rows_of, violations
from tests import soak_job

JOB = Path(__file__).with_name("soak_job.py")
LAST_S = 300.0
"""How long the last window may take, with no more faults."""
FAULTS = {"kill": 6, "term": 2, "pause": 2, "takeover": 2, "busy": 2}
"""What happens, and how often it does compared with the others.

kill: SIGKILL. term: SIGTERM, it drains, and the next one begins. pause: SIGSTOP, and SIGCONT after a while. takeover: another one
waits for the file when this one is killed. busy: another program holds the file's write lock for a while.
"""
EVERY_S = (0.4, 3.0)  #: between two faults, at least and at most
AT_WORK = 0.8  #: of the faults meet it at work, or in recovery; the others may meet it anywhere
PAGE = 500  #: runs that are looked at together at the end


@define
class Soak:
    """One soak: its folder, its chance, what it did."""

    folder: Path
    chance: random.Random
    alive: subprocess.Popen[bytes] | None = None
    faults: Counter[str] = field(factory=Counter[str])
    wrong: list[str] = field(factory=list[str])
    lives: int = 0

    @property
    def database(self) -> Path:
        return self.folder / "soak.db"

    def begin(self) -> subprocess.Popen[bytes]:
        """Another process of the service."""
        self.lives += 1
        with (self.folder / "errors").open("ab") as errors:
            backend = self.chance.choice(["asyncio", "trio"])
            environment = os.environ | {"PYTHONPATH": str(JOB.parent.parent)}
            return subprocess.Popen([sys.executable, str(JOB), str(self.folder), backend], stderr=errors, env=environment)

    def ledger(self) -> Iterator[list[str]]:
        """What was written down, line by line."""
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "ledger").read_text().splitlines():
                yield line.split()

    def complain(self, what: str) -> None:
        self.wrong.append(what)

    # --- faults -------------------------------------------------------------------------------------------------------------

    def strike(self, what: str) -> None:
        """One fault."""
        assert self.alive is not None
        self.faults[what] += 1
        match what:
            case "kill":
                self._end(self.alive, signal.SIGKILL)
                self.alive = self.begin()
            case "term":
                began = time.monotonic()
                self._end(self.alive, signal.SIGTERM)
                if self.alive.returncode not in (0, -signal.SIGTERM):  # The latter: before it listened.
                    self.complain(f"told to end, it ended with {self.alive.returncode} after {time.monotonic() - began:.1f} s")
                self.alive = self.begin()
            case "pause":
                os.kill(self.alive.pid, signal.SIGSTOP)
                time.sleep(0.2 + self.chance.random() * 2.0)
                os.kill(self.alive.pid, signal.SIGCONT)
            case "takeover":
                heir = self.begin()
                time.sleep(self.chance.random())
                self._end(self.alive, signal.SIGKILL)
                self.alive = heir
            case _:
                self._hold()

    def _end(self, child: subprocess.Popen[bytes], how: signal.Signals) -> None:
        child.send_signal(how)
        try:
            child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.complain(f"it did not end within 60 s of {how.name}; where it stood is in {self.folder / 'errors'}")
            self._dump(child)

    def _dump(self, child: subprocess.Popen[bytes]) -> None:
        """Let it write down its stacks, and kill it."""
        child.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=2)
        child.kill()
        child.wait()

    def _hold(self) -> None:
        """Hold the write lock of the file for a while, as a backup program may."""
        if not self.database.exists():
            return
        other = sqlite3.connect(self.database, timeout=5, isolation_level=None)
        with contextlib.closing(other) as db, contextlib.suppress(sqlite3.Error):
            db.execute("begin immediate")
            time.sleep(0.1 + self.chance.random())
            db.execute("rollback")

    def look(self) -> None:
        """Begin again if it ended by itself, which it should not."""
        assert self.alive is not None
        if (code := self.alive.poll()) is not None:
            self.complain(f"it ended by itself with {code}; see {self.folder / 'errors'}")
            self.alive = self.begin()

    # --- the whole --------------------------------------------------------------------------------------------------------------

    def run(self, for_s: float) -> None:
        """Load and faults for so long, then the last window without faults."""
        began = told = time.monotonic()
        self.alive = self.begin()
        try:
            while (now := time.monotonic()) < began + for_s and len(self.wrong) < 10:
                if now > told + 10:
                    told = now
                    self.tell(now - began)
                if self.chance.random() < AT_WORK:
                    self.wait_for_life(began + for_s)
                time.sleep(self.chance.uniform(*EVERY_S))
                self.look()
                self.strike(self.chance.choices(list(FAULTS), list(FAULTS.values()))[0])
            (self.folder / "stop").touch()
            self.look()
            try:
                code = self.alive.wait(timeout=LAST_S)
                if code != 0:
                    self.complain(f"the last life ended with {code}; see {self.folder / 'errors'}")
            except subprocess.TimeoutExpired:
                self.complain(f"without faults it came to no end in {LAST_S:g} s; see {self.folder / 'errors'}")
                self._dump(self.alive)
        finally:
            self.alive.kill()
            self.alive.wait()

    def wait_for_life(self, until: float) -> None:
        """Until it holds the file: an interpreter takes its time to start."""
        assert self.alive is not None
        life = self.folder / "life"
        while time.monotonic() < until and self.alive.poll() is None:
            if life.exists() and life.read_text() == str(self.alive.pid):
                return
            time.sleep(0.02)

    def tell(self, passed_s: float) -> None:
        """Progress."""
        words = Counter(line[0] for line in self.ledger())
        faults = ", ".join(f"{count} {what}" for what, count in sorted(self.faults.items()))
        ended, effects = words["seen"], words["effect"]
        print(f"{passed_s:4.0f} s: {ended} ends seen, {effects} effects, {self.lives} lives ({faults})", flush=True)


# --- the verdict ---------------------------------------------------------------------------------------------------------


def judge_ledger(soak: Soak) -> dict[str, Any]:
    """What callers were told, and which effects there were. Complains in *soak*; returns figures."""
    seen: dict[int, set[str]] = defaultdict(set)
    accepted, effects, undone, memory, windows = set[int](), Counter[str](), defaultdict[int, list[str]](list), list[int](), 0
    reached: dict[int, int] = {}
    for word, *rest in soak.ledger():
        match word:
            case "accepted":
                accepted.add(int(rest[0]))
            case "seen":
                seen[int(rest[0])].add(rest[1])
            case "effect":
                effects[rest[0]] += 1
            case "step" if int(rest[0]) >= 0 and int(rest[0]) % soak_job.SORTS == 0:
                job, at = map(int, rest)
                if at < reached.get(job, 0):
                    soak.complain(f"step {at} of job {job} began again after step {reached[job]}")
                reached[job] = at
            case "undo":
                undone[int(rest[0])].append(rest[1])
            case "memory":
                memory.append(int(rest[1]))
            case "done":
                windows += 1
            case _:
                pass
    jobs = windows * soak_job.WINDOW
    for n in range(jobs):
        if seen[n] != {soak_job.expected(n)}:
            soak.complain(f"job {n} was seen to end as {sorted(seen[n])}, not as {soak_job.expected(n)}")
        if n % soak_job.SORTS == 6 and list(dict.fromkeys(undone[n])) != ["second", "first"]:
            soak.complain(f"job {n} was undone in this order: {undone[n]}")
    if accepted - set(range(jobs)):
        soak.complain(f"accepted and never finished: {sorted(accepted - set(range(jobs)))[:10]}")
    return {
        "jobs": jobs,
        "effects": sum(effects.values()),
        "repeated": sum(count - 1 for count in effects.values()),
        "memory_first_mb": round(memory[0] / 1e6, 1) if memory else None,
        "memory_last_mb": round(memory[-1] / 1e6, 1) if memory else None,
    }


async def judge_rows(soak: Soak, jobs: int) -> int:
    """The store's own rows. Returns how many runs and actors there are."""
    store = SqliteStore(str(soak.database))
    await store.open(now=time.time())
    try:
        runs: list[Run] = []
        while page := await store.runs(RunQuery(limit=1_000, before_id=runs[-1].id if runs else None)):
            runs += page
        ended = {run.key: run.status for run in runs if run.kind == "SoakJob"}
        wanted = {str(n): "failed" if soak_job.expected(n) == "Abort" else "completed" for n in range(jobs)}
        for key in sorted(ended.keys() | wanted.keys()):
            if ended.get(key) != wanted.get(key):
                soak.complain(f"job {key} is {ended.get(key)} in the store, not {wanted.get(key)}")
        for begin in range(0, len(runs), PAGE):
            rows = await rows_of(store, [run.id for run in runs[begin : begin + PAGE]])
            for line in [*violations(rows, soak_job.ACTORS), *replays(rows, soak_job.ACTORS)]:
                soak.complain(line)
            for each in rows:
                if each.run.actor:
                    _judge_counter(soak, each.run, jobs)
        if dead := await store.dead_letters(limit=10):
            soak.complain(f"dead letters: {[letter.key for letter in dead]}")
    finally:
        await store.close()
    with contextlib.closing(sqlite3.connect(soak.database)) as db:
        if (said := db.execute("pragma integrity_check").fetchone()[0]) != "ok":
            soak.complain(f"SQLite says of the file: {said}")
    return len(runs)


def _judge_counter(soak: Soak, run: Run, jobs: int) -> None:
    """Every message had its effect, once: a client's for each job, and those of jobs that ask or tell."""
    of = [n for n in range(jobs) if f"c-{n % soak_job.COUNTERS}" == run.key]
    wanted = {
        "total": len(of) + sum(n % soak_job.SORTS == 2 for n in of),
        "ticks": sum(n % soak_job.SORTS == 3 for n in of),
    }
    state = json.loads(run.view or run.fields or run.input)
    holds = {name: state.get(name) for name in wanted}
    if holds != wanted:
        soak.complain(f"{run.key} holds {holds}, and was told {wanted}")


def soaked(folder: Path, *, for_s: float, seed: int) -> tuple[Soak, dict[str, Any]]:
    """The whole: load, faults, verdict."""
    soak, began = Soak(folder, random.Random(seed)), time.monotonic()
    soak.run(for_s)
    took_s = time.monotonic() - began
    figures = judge_ledger(soak)
    if soak.database.exists():
        figures["rows"] = anyio.run(judge_rows, soak, figures["jobs"])
    if not figures["jobs"]:
        soak.complain("not one window was finished")
    figures |= {
        "seed": seed,
        "seconds": round(took_s, 1),
        "jobs_a_second": round(figures["jobs"] / took_s, 1),
        "lives": soak.lives,
        "faults": dict(soak.faults),
        "wrong": soak.wrong,
    }
    return soak, figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--for", dest="for_", default="10m", metavar="TIME", help='how long: "90s", "10m", "8h"')
    parser.add_argument("--seed", type=int, default=None, help="of all that is drawn; printed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the store, the ledger and the errors")
    parser.add_argument("--json", action="store_true", help="print the figures as one object")
    given = parser.parse_args(arguments)
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    folder = given.keep or Path(tempfile.mkdtemp(prefix="actorflow-soak-"))
    folder.mkdir(exist_ok=True)
    print(f"seed {seed}, in {folder}", flush=True, file=sys.stderr if given.json else sys.stdout)
    with contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext():
        soak, figures = soaked(folder, for_s=seconds(given.for_), seed=seed)
    print(json.dumps(figures, indent=1) if given.json else _verdict(figures))
    if not soak.wrong and given.keep is None:
        shutil.rmtree(folder)
    return 1 if soak.wrong else 0


def _verdict(figures: dict[str, Any]) -> str:
    faults = ", ".join(f"{count} {what}" for what, count in sorted(figures["faults"].items()))
    pace, rows = f"{figures['seconds']} s ({figures['jobs_a_second']} a second)", figures.get("rows", 0)
    first, last = figures["memory_first_mb"], figures["memory_last_mb"]
    lines = [
        f"{figures['jobs']} jobs in {pace}, {rows} runs and actors in the store",
        f"{figures['lives']} lives; faults: {faults or 'none'}",
        f"{figures['effects']} effects of steps, of which crashes repeated {figures['repeated']}",
        f"memory of the service after its first window {first} MB, after its last {last} MB",
    ]
    lines += [f"WRONG: {what}" for what in figures["wrong"]]
    lines.append("FAILED" if figures["wrong"] else "all that was accepted is there, once, and every job came to its end")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
