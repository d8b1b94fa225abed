"""The driver: holds the branches of one run and resumes them by hand, in journal order. Pure and synchronous.

Theory of operation. Durable code is a coroutine that is never a task of an event loop. What it awaits is a `Request`,
yielded to this module. A request is answered by an `Entry`: from the journal on replay, recorded by the shell when live.
Entries go in one at a time; after each, all branches run until they wait again. So the order in which branches wake is the
order of the journal, and a replay sees exactly what the live run saw. `begin` and `deliver` return a `Stretch`: what the
code noted on the spot, what it asks for now, and whether it ended. Nothing here waits, so nothing here can be interrupted.

What the code yields that is no request is a foreign await: the code is dropped, never resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from actorflow.errors import AgainMisplaced, Control, Divergence, FieldWriteInBranch, ForeignAwait, StepNameTaken, Undecodable
from actorflow.kernel.branches import NO_PATHS, Branch, Group, Scope, here, leave
from actorflow.kernel.foreign import foreign_error, waiting_line
from actorflow.kernel.journal import NOT_COMPARED, SPOT, Journal, short
from actorflow.kernel.outbox import Outbox
from actorflow.kernel.requests import (
    NOTHING,
    Again,
    AgainRaised,
    Asked,
    Broken,
    Checkpoint,
    Closing,
    Code,
    Finished,
    Gather,
    GatherClosed,
    Join,
    Note,
    Request,
    State,
    Stretch,
)
from actorflow.records import Entry, Event, Identity


class Turn:
    """One activation of a run: from the top of its code over what is recorded to the present."""

    def __init__(
        self,
        code: Code,
        context: Context,
        events: Sequence[Event] = (),
        *,
        state: State | None = None,
        instance: object = None,
        now: Callable[[], float] = lambda: 0.0,
        seed: str = "",
        outbox: Outbox | None = None,
    ) -> None:
        """Nothing is driven yet.

        Args:
            code, context: The coroutine to drive, and the context it runs in; each branch gets a copy.
            events: What is recorded of this round and not folded, in order.
            state, instance: The fields (None if the code has none), and whose they are: its writes are checked.
            now, seed: The wall clock; what `random()` and `uuid()` derive from, another one each round.
            outbox: Where an actor's turn puts what it sends; a run has none.
        """
        self.journal: Journal = Journal(events)
        trunk = Branch("", code, context, trunk=True)
        self.delivered: int = 0  #: entries handed over so far: how far the journal reached
        self.now: Callable[[], float] = now
        self.seed: str = seed
        self.state: State | None = state
        self.instance: object = instance
        self.outbox: Outbox | None = outbox
        self._left = len(self.journal.order)
        self.branches: dict[str, Branch] = {"": trunk}  #: those that go on; none once it has ended or was dropped
        self._current = trunk  #: the branch that runs, or ran last
        self._runnable: list[tuple[Branch, Any, BaseException | None]] = [(trunk, None, None)]
        self._waiting: dict[str, Asked] = {}
        self._errors: tuple[tuple[BaseException, Entry], ...] = ()  #: the latest, which may still be on their way out
        self.names: dict[str, object] = {}
        self._cancelled = NO_PATHS
        self._stretch = NOTHING

    # --- for the shell ------------------------------------------------------------------------------------------------

    def begin(self) -> Stretch:
        """Run from the top over all that is recorded."""
        return self.deliver(*self.journal.order)

    def wants(self, asked: Asked) -> bool:
        """False once the branch was cancelled: an outcome that comes now is too late to be recorded."""
        return self._waiting.get(asked.identity.branch) is asked

    def waiting(self) -> list[Asked]:
        """All that the code waits for, in the order in which its branches opened."""
        return list(self._waiting.values())

    @property
    def replaying(self) -> bool:
        """True while recorded entries were not handed over yet."""
        return self._left > 0

    def drop(self) -> None:
        """Leave memory. Not cancellation: `finally` blocks run because Python runs them, and every verb in them is refused."""
        if self.branches:
            branches, self.branches = list(self.branches.values()), {}
            self._waiting.clear()  # A branch that is gone takes no message and wants no outcome.
            leave(branches)

    __del__ = drop  # Reference counting reaches the turn before the coroutines that it alone holds.

    # --- for verbs that are answered on the spot ------------------------------------------------------------------------

    @property
    def branch(self) -> Branch:  #: the one that runs now
        return self._current

    def spot(self, kind: str, name: str, answer: Callable[[], bytes | None], effect: Any = None) -> bytes | None:
        """The recorded answer to a call that does not wait, or the one given now, which rides in the next commit."""
        identity = self.branch.next(name)
        recorded = self.journal.claim(kind, (name,), identity)
        if recorded is not None:
            return recorded.outcome
        outcome = answer()
        self._stretch.notes += (Note(kind, identity, outcome, effect),)
        return outcome

    def refused(self, name: str, refuses: Callable[[], bool]) -> bool:
        """True if this call of an actor's turn was refused then, or is now. Only a refusal is recorded."""
        identity, head = self.branch.next(name), self.journal.head(self.branch.path)
        if head is not None:  # Not the frontier.
            return (head.kind, head.identity) == ("full", identity) and self.journal.claim("full", (name,), identity) is not None
        self._stretch.notes += (Note("full", identity, None),) if (full := refuses()) else ()
        return full

    def patched(self, flag: str) -> bool:
        """One answer a round, for all branches: False if the run was replaying when it was first asked."""
        answer = self.journal.patches.get(flag)
        if answer is None:
            self.journal.patch(flag, answer=(answer := not self.replaying))
            self._stretch.notes += (Note("patch", Identity("", flag, 0), b"true" if answer else b"false"),)
        return answer

    def task(self, code: Code, key: str | None) -> Branch:
        """Open a branch that outlives the line that started it."""
        parent = self.branch
        if key is None:
            suffix = f"task#{parent.next('task').n}"
        else:
            suffix = "task:" + key.replace("~", "~0").replace("/", "~1")
            if suffix in parent.keys:
                raise ValueError(f"this branch has started a task with key {key!r} before: keys name tasks, use another")
            parent.keys += (suffix,)
        return self._open(Branch(f"{parent.path}/{suffix}", code, parent.context.copy()))

    def check_name(self, name: str, function: object) -> None:
        """One name, one function, within a run."""
        if self.names.setdefault(name, function) is not function:
            raise StepNameTaken(name)

    def again(self) -> None:
        """End the round, if it may end here."""
        if self.branch.path:
            kind = "checkpoint" if self.branch.trunk else "branch"
            raise AgainMisplaced(f"this is {kind} {self.branch.path}")
        if len(self.branches) > 1:
            raise AgainMisplaced(f"open are {', '.join(path for path in self.branches if path)}")
        raise AgainRaised

    def writable(self, field: str) -> None:
        """Refuse a field write in a branch."""
        if not self._current.trunk:
            raise FieldWriteInBranch(field, self._current.path)

    # --- driving --------------------------------------------------------------------------------------------------------

    def deliver(self, *entries: Entry) -> Stretch:
        """Hand over outcomes one at a time, and after each run until all branches wait again."""
        outer, here.turn, self._stretch = here.turn, self, Stretch()
        try:
            if self._runnable:
                self._go_on()
            for entry in entries:
                if self._stretch.end is None:
                    self._hand_over(entry)
                elif not self._gone(entry.branch) and (entry.kind not in SPOT or self.journal.unclaimed(entry)):
                    # What its open branches recorded after the code ended, and what it was told on the spot in its last
                    # stretch, may follow; anything else is of another code.
                    raise Divergence("the end of the run", [f"{entry.kind} {entry.identity}"])
                self._go_on()
            if self._stretch.end is None and not self._waiting:
                raise RuntimeError("all branches wait for each other: a task awaits itself, or two await one another")
        except (Control, Exception) as reason:  # noqa: BLE001  (an entry that today's classes cannot read, too)
            self._stretch = Stretch(end=Broken(reason))
        finally:
            here.turn = outer
        stretch, self._stretch = self._stretch, NOTHING
        if stretch.end is not None:
            self.drop()
        elif self._cancelled:
            stretch.asks = [asked for asked in stretch.asks if self.wants(asked)]
        return stretch

    def _hand_over(self, entry: Entry) -> None:
        if self._left:
            self._left -= 1
        self.delivered += 1
        kind, path, name, n = entry[2:6]
        if self._cancelled and self._gone(path):
            return
        if kind in SPOT:
            if self.journal.unclaimed(entry):
                raise self._nobody_asks(entry)
            return
        asked = self._waiting.get(path)
        if asked is None or not asked.is_call(name, n):
            raise self._nobody_asks(entry)
        del self._waiting[path]
        try:
            value, error = asked.request.answer(entry)
        except Undecodable as undecodable:
            undecodable.call = f"{entry.identity}"
            raise
        if error is not None and not isinstance(asked.request, Closing):  # A gather hands on what came from elsewhere.
            self._errors = (*self._errors[-63:], (error, entry))
        self._runnable.append((self.branches[path], value, error))

    def _gone(self, path: str) -> bool:
        while path:
            if path in self._cancelled:
                return True
            path = path.rpartition("/")[0]
        return False

    def _nobody_asks(self, entry: Entry) -> Divergence:
        asked = ", ".join(f"{a.request.kind} {a}" for a in self._waiting.values()) or "nothing"
        return Divergence(asked, [f"{entry.kind} {entry.identity}"])

    def _go_on(self) -> None:
        while self._runnable and self._stretch.end is None:
            branch, value, error = self._runnable.pop(0)
            self._current = branch
            try:
                if error is None:
                    wanted = branch.context.run(branch.coro.send, value)
                else:
                    wanted = branch.context.run(branch.coro.throw, error)
            except StopIteration as stop:
                self._ended(branch, stop.value, None)
            except AgainRaised:
                self._stretch.end = Again()
            except Control:
                raise
            except BaseException as raised:  # noqa: BLE001  (KeyboardInterrupt and the like in durable code are bugs of it)
                # Without this frame, which would tie the turn to whoever keeps the error.
                self._ended(branch, None, raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next))
            else:
                if isinstance(wanted, Request) and wanted.waits:  # What most calls are.
                    self._wait(branch, wanted, branch.next(wanted.name))
                else:
                    self._asked(branch, wanted)

    def _asked(self, branch: Branch, wanted: object) -> None:
        match wanted:
            case Gather():
                self._gather(branch, wanted)
            case Join(task):
                self._join(branch, task)
            case Checkpoint():
                self._checkpoint(branch, wanted)
            case _:
                raise ForeignAwait(waiting_line(branch.coro), repr(wanted))

    def _wait(self, branch: Branch, request: Request, identity: Identity) -> None:
        """The branch waits for an entry: the recorded one, or one to be made."""
        asked = self._waiting[branch.path] = Asked(identity, request, branch.context)
        recorded = self.journal.claim(request.kind, (request.name, *request.was), identity) if self._left else None
        if recorded is None:
            if request.was:
                self.journal.adopt(request.was, identity)
            self._stretch.asks.append(asked)
        elif recorded.input != NOT_COMPARED and not request.same_input(recorded.input):
            raise Divergence(
                f"{request.kind} {identity} with {short(request.input())}", [f"the same call with {short(recorded.input)}"]
            )

    def _open(self, branch: Branch) -> Branch:
        self.branches[branch.path] = branch
        self._runnable.append((branch, None, None))
        return branch

    # --- gather and tasks -----------------------------------------------------------------------------------------------

    def _gather(self, parent: Branch, request: Gather) -> None:
        scope = f"{parent.path}/gather#{parent.next('gather').n}."
        before = self._mutable_fields() if parent.trunk else None
        group = Group(parent, scope, [None] * len(request.branches), len(request.branches), request.settle, before)
        for index, code in enumerate(request.branches):
            self._open(Branch(f"{scope}{index}", code, parent.context.copy(), owner=group))
        if not request.branches:
            self._runnable.append((parent, (), None))

    def _mutable_fields(self) -> dict[str, bytes] | None:
        return None if self.state is None or self.state.frozen() else self.state.parts()

    def _join(self, branch: Branch, task: Branch) -> None:
        if task.ended is None:
            task.joiners += (branch,)
        else:
            self._runnable.append((branch, *task.ended))

    def _ended(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        if error is not None and not self._recorded(error) and (foreign := foreign_error(error)) is not None:
            raise foreign
        self.journal.close(branch.path, error)
        del self.branches[branch.path]
        branch.end(value, error)
        match branch.owner:
            case Group() as group:
                self._ended_in_group(group, branch, value, error)
            case Scope() as scope:
                self._ended_checkpoint(scope, branch, value, error)
            case None if branch.path:
                self._runnable.extend((joiner, value, error) for joiner in branch.joiners)
            case None:
                self._stretch.end = Finished(value, error, self._recorded(error), self._drop_under("/"))

    def _recorded(self, error: BaseException | None) -> Entry | None:
        return next((entry for known, entry in reversed(self._errors) if known is error), None) if self._errors else None

    def _ended_in_group(self, group: Group, branch: Branch, value: Any, error: BaseException | None) -> None:
        if error is not None and not (group.settle and isinstance(error, Exception)):
            self._group_failed(group, error)
            return
        group.results[int(branch.path[len(group.scope) :])] = value if error is None else error
        group.open -= 1
        if not group.open:
            self._check_fields(group)
            self._runnable.append((group.parent, tuple(group.results), None))

    def _group_failed(self, group: Group, error: BaseException) -> None:
        dropped = self._drop_under(group.scope)
        if not isinstance(error, Exception):
            self._runnable.append((group.parent, None, error))
            return
        self._check_fields(group)
        n = group.parent.calls["gather"] - 1
        self._wait(group.parent, GatherClosed(dropped, error), Identity(group.parent.path, "gather", n))

    def _check_fields(self, group: Group) -> None:
        if group.before is None or self.state is None:
            return
        after = self.state.parts()
        for name, part in group.before.items():
            if after[name] != part:
                raise FieldWriteInBranch(name, group.scope + "*")

    def _drop_under(self, scope: str) -> tuple[Asked, ...]:
        """Cancel all branches whose path begins with *scope*; returns what they waited for."""
        if not self.branches:
            return ()
        gone = [branch for path, branch in self.branches.items() if path.startswith(scope)]
        paths = {branch.path for branch in gone}
        dropped = tuple(asked for path, asked in list(self._waiting.items()) if path in paths)
        for path in paths:
            self._waiting.pop(path, None)
            self.branches.pop(path)
            self.journal.forget(path)
        self._cancelled |= paths
        self._runnable = [item for item in self._runnable if item[0].path not in paths]
        leave(gone)
        return dropped

    # --- checkpoints ----------------------------------------------------------------------------------------------------

    def _checkpoint(self, parent: Branch, request: Checkpoint) -> None:
        self.check_name(request.name, request.function)
        identity = parent.next(request.name)
        head = self.journal.head(parent.path)
        if head is not None and head.kind == "checkpoint" and head.n == identity.n and head.name in (request.name, *request.was):
            self._wait(parent, request, identity)
            return
        before = self.state.parts() if parent.trunk and self.state is not None else None
        # One that was renamed while it was open goes on, and is closed, under the name that its entries have.
        identity = identity._replace(name=self.journal.begun_as(parent.path, (request.name, *request.was), identity.n))
        path = f"{parent.path}/{identity.name}#{identity.n}"
        scope = Scope(parent, request, identity, before)
        self._open(Branch(path, request.run(), parent.context, trunk=parent.trunk, owner=scope))

    def _ended_checkpoint(self, scope: Scope, branch: Branch, value: Any, error: BaseException | None) -> None:
        dropped = self._drop_under(f"{branch.path}/")
        if error is not None:  # Only success folds: replay enters it again.
            self._runnable.append((scope.parent, None, error))
            return
        changed = None
        if scope.before is not None and self.state is not None:
            changed = {name: part for name, part in self.state.parts().items() if scope.before[name] != part}
        self._wait(scope.parent, scope.request.close(value, changed, dropped), scope.identity)
