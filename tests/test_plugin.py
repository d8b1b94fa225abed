"""The pytest plugin, as its users meet it: their test files are written, run, and read what comes out."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from actorflow.testing import plugin, survival, verdict

LOADED = (survival, verdict)
"""Pytester forgets what was imported while it ran; what is imported here stays."""

pytest_plugins = ("pytester",)

SHOP = '''
import random
import anyio
import pytest
from attrs import frozen
from actorflow import *


class Bank:
    """Knows nothing of idempotency keys."""

    def __init__(self):
        self.charged = []

    async def charge(self, who, cents):
        await anyio.sleep(0.1)
        self.charged.append((who, cents))
        await anyio.sleep(0.1)


class KeyedBank:
    """Does what has a key once."""

    def __init__(self):
        self.charged = {}

    async def charge(self, who, cents):
        await anyio.sleep(0.1)
        self.charged[current_step().key] = (who, cents)
        await anyio.sleep(0.1)


class Approve(Message[None]):
    by: str


@step
def ship(name: str) -> str:
    return f"parcel for {name}"


@step
async def charge(name: str, cents: int, *, bank: Bank = resource()) -> int:
    await bank.charge(name, cents)
    return cents


@step
async def charge_once(name: str, cents: int, *, bank: KeyedBank = resource()) -> int:
    await bank.charge(name, cents)
    return cents


class Checkout(Workflow[str]):
    name: str

    async def run(self) -> str:
        cents = await charge(self.name, 42)
        answer = await self.receive(Approve, within="3d")
        if answer is None:
            raise Abort("nobody approved it")
        return f"{await ship(self.name)}, {cents} paid, approved by {answer.by}"


class SafeCheckout(Workflow[str]):
    name: str

    async def run(self) -> str:
        cents = await charge_once(self.name, 42)
        answer = await self.receive(Approve, within="3d")
        return f"{await ship(self.name)}, {cents} paid, approved by {answer.by}"


'''


@pytest.fixture
def written(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with a shop to be tested, by a pytest without other plugins."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(shop=SHOP)
    return pytester


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Run that test file with the plugin."""
    pytester.makepyfile(test_shop=f"from shop import *\n{dedent(test)}")
    # The module itself, not its name: pytest would warn that it is loaded already, as it is where the doctests were collected.
    known = ("-p", "no:actorflow", "-p", "no:cacheprovider", "-W", "error")
    return pytester.runpytest_inprocess(*known, *options, plugins=[plugin])


def passes(pytester: pytest.Pytester, test: str, *options: str, passed: int = 1) -> pytest.RunResult:
    result = run(pytester, test, *options)
    result.assert_outcomes(passed=passed)
    return result


def says(pytester: pytest.Pytester, test: str, *lines: str, options: tuple[str, ...] = ()) -> pytest.RunResult:
    """The test fails, and what is said of it has these lines, in that order."""
    result = run(pytester, test, *options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{line.replace('[', '[[]')}*" for line in lines])
    return result


# --- the fixture --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_test_with_the_fixture_runs_in_virtual_time_and_survives_what_it_does_to_its_process(
    written: pytest.Pytester, backend: str
) -> None:
    test = """
    async def test_an_order_waits_for_its_approval(actorflow):
        actorflow.use(resources=[Bank()])
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await actorflow.skip("2 days")
        await actorflow.crash(downtime="20h")
        await run.tell(Approve(by="bob"))
        assert await run.result() == "parcel for ann, 42 paid, approved by bob"
        assert actorflow.calls(charge) == 1
        assert actorflow.arguments(charge) == [{"name": "ann", "cents": 42}]
        assert actorflow.arguments(ship) == [{"name": "ann"}]
        assert actorflow.crashes == 1

    async def test_an_order_that_nobody_approves_fails(actorflow):
        actorflow.use(resources=[Bank()])
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await actorflow.skip("2.9 days")
        assert (await run.status()).status == "waiting"
        await actorflow.restart()
        await actorflow.skip("3h")
        assert (await run.status()).status == "failed"
        with pytest.raises(Abort, match="nobody approved"):
            await run.result()
    """

    passes(written, test, "--actorflow-backend", backend, passed=2)


def test_a_marker_or_an_option_says_on_which_loops(written: pytest.Pytester) -> None:
    test = """
    from sniffio import current_async_library

    @pytest.mark.actorflow(backend="both")
    async def test_both(actorflow):
        print("on", current_async_library())

    async def test_default(actorflow):
        print("on", current_async_library())
    """
    both = passes(written, test, "-v", "-s", passed=3)
    both.stdout.fnmatch_lines(["*test_both?asyncio? on asyncio", "*test_both?trio? on trio", "*test_default on asyncio"])

    written.makeini("[pytest]\nactorflow_backend = trio")
    passes(written, test, "-v", "-s", passed=3).stdout.fnmatch_lines(["*test_default on trio"])


def test_what_waits_for_a_verb_goes_on_waiting_over_crashes(written: pytest.Pytester) -> None:
    test = """
    async def test_results_and_asks_outlive_crashes(actorflow):
        class Add(Message[int]):
            n: int

        class Sum(Actor):
            total: int = 0

            @handler
            async def add(self, m: Add) -> int:
                await charge_once("ann", m.n)
                self.total += m.n
                return self.total

        actorflow.use(resources=[Bank(), KeyedBank()])
        results = []

        async def wait():
            run = await actorflow.start(SafeCheckout("ann"), key="o-1")
            await run.tell(Approve(by="bob"))
            results.append(await run.result())

        async def ask():
            results.append(await actorflow.at(Sum, "s").ask(Add(5)))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(ask)
            for _ in range(2):
                await anyio.sleep(0.05)
                await actorflow.crash()
        assert sorted(map(str, results)) == ["5", "parcel for ann, 42 paid, approved by bob"]
        assert await actorflow.at(Sum, "s").ask(Add(1)) == 6
    """

    passes(written, test, "--actorflow-backend", "both", passed=2)


def test_a_mock_stands_for_a_step_for_one_test(written: pytest.Pytester) -> None:
    test = """
    async def finished(actorflow):
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await run.tell(Approve(by="bob"))
        return await run.result()

    async def test_returns(actorflow):
        actorflow.mock(charge, returns=7)
        assert "7 paid" in await finished(actorflow)
        assert actorflow.calls(charge) == 1

    async def test_several_outcomes_one_for_each_attempt(actorflow):
        actorflow.mock(charge, side_effect=[Transient("busy"), TimeoutError(), 8])
        assert "8 paid" in await finished(actorflow)
        assert actorflow.calls(charge) == 3

    async def test_a_function_sync_or_async(actorflow):
        async def cheaper(name, cents):
            await anyio.sleep(60)
            return cents - 1

        actorflow.mock(charge, side_effect=cheaper)
        actorflow.mock(ship, side_effect=str.upper)
        assert await finished(actorflow) == "ANN, 41 paid, approved by bob"

    async def test_raises(actorflow):
        actorflow.mock(charge, raises=Abort("no money"))
        run = await actorflow.start(Checkout("ann"), key="o-1")
        with pytest.raises(Abort, match="no money"):
            await run.result()

    async def test_the_real_one_is_back(actorflow):
        actorflow.use(resources=[Bank()])
        assert "42 paid" in await finished(actorflow)

    async def test_what_is_no_step_is_refused(actorflow):
        with pytest.raises(BadDefinition, match="is no step"):
            actorflow.mock(Checkout.run.__wrapped__ if hasattr(Checkout.run, "__wrapped__") else Checkout, returns=1)
    """

    passes(written, test, passed=6)


def test_loops_undos_and_steps_of_threads_and_processes_are_counted_and_mocked(written: pytest.Pytester) -> None:
    test = """
    DONE = []

    def load(n: int) -> None:
        DONE.append(n)

    @step
    def refund(n: int) -> None:
        DONE.append(("refund", n))

    @step(undo=refund, run_in="process")
    def pay(n: int) -> int:
        return n

    def rows():
        yield from range(5)

    class Import(Workflow[int]):
        async def run(self) -> int:
            progress = await self.each(rows, load, key=str, parallel=2)
            await pay(progress.done)
            raise Abort("enough")

    async def test_it(actorflow):
        DONE.clear()
        actorflow.mock(refund, returns=None)
        run = await actorflow.start(Import(), key="i")
        with pytest.raises(Abort):
            await run.result()
        assert sorted(DONE) == [0, 1, 2, 3, 4]
        assert (actorflow.calls(load), actorflow.calls(pay), actorflow.calls(refund)) == (5, 1, 1)
        assert actorflow.arguments(refund) == [{"n": 5}]
    """

    passes(written, test, "--actorflow-backend", "both", passed=2)


def test_a_new_class_of_the_same_kind_is_a_deploy(written: pytest.Pytester) -> None:
    test = """
    class NewCheckout(Workflow[str], kind="Checkout"):
        name: str

        async def run(self) -> str:
            await ship(self.name)
            return "new"

    async def test_it(actorflow):
        actorflow.mock(charge, returns=1)
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await actorflow.skip(1)
        actorflow.use(NewCheckout)
        await actorflow.restart()
        with pytest.raises(RunPaused) as paused:
            await run.result()
        assert paused.value.reason == "diverged"
    """

    passes(written, test)


def test_who_waits_for_what_never_comes_is_told_what_everybody_waits_for(written: pytest.Pytester) -> None:
    test = """
    class Patient(Workflow[None]):
        async def run(self) -> None:
            await self.receive(Approve)

    async def test_it(actorflow):
        await (await actorflow.start(Patient(), key="p")).result()
    """

    says(written, test, "Stuck: result has waited two years for an answer, in virtual time. Patient/p waits for a message")


def test_what_this_plugin_cannot_run_is_said(written: pytest.Pytester) -> None:
    result = run(
        written,
        """
        @pytest.mark.actorflow(backend="curio")
        async def test_backend(actorflow): ...
        """,
        "--continue-on-collection-errors",
    )
    result.stdout.fnmatch_lines(["*there is no backend 'curio'; choose asyncio, trio or both."])

    result = run(
        written,
        """
        from hypothesis import HealthCheck, given, settings, strategies as st

        def test_sync(actorflow): ...

        @settings(suppress_health_check=list(HealthCheck))
        @given(st.integers())
        async def test_given(actorflow, n): ...

        @pytest.mark.survives
        def test_without(): ...

        @pytest.mark.survives(point=3)
        async def test_unknown(actorflow): ...

        @pytest.mark.survives(faults=["fire"])
        async def test_fault(actorflow): ...
        """,
    )
    result.stdout.fnmatch_lines(
        [
            "*the fixture `actorflow` cannot be had here. It awaits things: write `async def test_sync(...)`.",
            "*With @given, each example needs a service of its own: write `Harness().play(test)` in the test.",
            "*`survives` needs the fixture: write `async def test_without(actorflow)`.",
            "*survives takes points=, *",
            "*survives knows the faults before, after, *; not fire.",
        ]
    )


# --- other plugins ------------------------------------------------------------------------------------------------------


def test_tests_of_anyio_are_left_alone_and_may_choose_the_loop(written: pytest.Pytester) -> None:
    test = """
    from sniffio import current_async_library
    pytestmark = pytest.mark.anyio

    async def test_theirs(anyio_backend):
        await anyio.sleep(0)

    async def test_ours(actorflow, anyio_backend):
        assert current_async_library() == anyio_backend
        actorflow.mock(charge, returns=1)
        await actorflow.start(Checkout("ann"), key="o-1")
        await actorflow.skip("300 days")
    """
    passes(written, test, "-p", "anyio", passed=4)


def test_loading_the_plugin_imports_nothing_that_takes_time_or_that_is_not_there() -> None:
    code = "import sys, actorflow; a = set(sys.modules); import actorflow.testing.plugin; print(*sorted(set(sys.modules) - a))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pytest" in loaded
    assert not loaded & {"anyio", "attrs", "hypothesis", "trio"}
    ours = {name for name in done.stdout.split() if name.startswith("actorflow.")}
    assert ours == {"actorflow.testing", "actorflow.testing.plugin"}


# --- survives -------------------------------------------------------------------------------------------------------------

SAFE = """
@pytest.mark.survives{how}
async def test_an_order(actorflow):
    actorflow.use(resources=[KeyedBank()])
    run = await actorflow.start(SafeCheckout("ann"), key="o-1")
    await run.tell(Approve(by="bob"))
    assert await run.result() == "parcel for ann, 42 paid, approved by bob"
"""


def survived(result: pytest.RunResult) -> int:
    [line] = [line for line in result.outlines if "SURVIVED" in line]
    return int(line.split("SURVIVED")[1].split()[0])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_workflow_that_hands_on_its_keys_survives_every_crash_point(written: pytest.Pytester, backend: str) -> None:
    result = passes(written, SAFE.format(how=""), "-v", "--actorflow-backend", backend, "--actorflow-points", "all")

    assert survived(result) > 40


def test_how_many_points_are_tried_is_chosen_by_the_marker_or_the_command_line(written: pytest.Pytester) -> None:
    some = passes(written, SAFE.format(how="(points=5, pairs=0)"), "-v")
    some.stdout.fnmatch_lines(["*SURVIVED 5 of *"])
    assert survived(passes(written, SAFE.format(how="(points=5, pairs=2)"), "-v", "--actorflow-points", "7")) == 9
    assert survived(passes(written, SAFE.format(how="(pairs=0, faults=['before', 'torn'])"), "-v")) < 10


def test_a_step_without_idempotency_is_found_and_explained(written: pytest.Pytester) -> None:
    test = """
    @pytest.mark.survives
    async def test_an_order(actorflow):
        actorflow.use(resources=[Bank()])
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await run.tell(Approve(by="bob"))
        assert await run.result()
    """

    says(
        written,
        test,
        "test_shop.py::test_an_order does not survive (crash point * of *)",
        "crash     the process died after `charge` had its effect and before its outcome was recorded",
        "then      `Bank.charged` holds 2 things; without the crash 1",
        "more: ('ann', 42)",
        "because   the step `charge` changed `Bank.charged` 2 times, at shop.py:*: self.charged.append((who, cents))",
        "Each time its idempotency key was the same: Checkout/o-1/0//charge/0",
        "to do     Hand `current_step().key` to whoever has the effect*",
        'survives(ignore=["Bank.charged"])',
        "journal   Checkout/o-1 was running then, and nothing was recorded",
        "again     pytest test_shop.py::test_an_order --actorflow-crash 'before commit *'",
    )


def test_a_runtime_that_runs_a_recorded_step_again_is_found(written: pytest.Pytester) -> None:
    """The promises are looked at, whatever the test asserts: here the journal is lost whenever a run goes on."""
    test = """
    from attrs import evolve
    from actorflow.stores.memory import MemoryStore

    @pytest.fixture(autouse=True)
    def forgetful(monkeypatch):
        load = MemoryStore.load

        async def forgets(store, run):
            loaded = await load(store, run)
            return loaded if loaded.run.status == "completed" else evolve(loaded, entries=[])

        monkeypatch.setattr(MemoryStore, "load", forgets)

    @pytest.mark.survives(faults=["after"])
    async def test_it(actorflow):
        actorflow.mock(charge, returns=1)
        actorflow.mock(ship, returns="parcel")
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await run.tell(Approve(by="bob"))
        await run.result()
    """

    says(written, test, "`charge` ran again, although its outcome was recorded")


def test_of_a_sample_the_earliest_failure_is_looked_for(written: pytest.Pytester) -> None:
    test = """
    DONE = []

    @step
    def act(n: int) -> None:
        if n > 2:
            DONE.append(n)

    class Acts(Workflow[None]):
        async def run(self) -> None:
            for n in range(9):
                await act(n)

    @pytest.mark.survives(points=6, pairs=0, faults=["before"])
    async def test_it(actorflow):
        await (await actorflow.start(Acts(), key="a")).result()
    """
    every = [line for line in run(written, test, "--actorflow-points", "all").outlines if " again " in line]

    for seed in range(4):
        said = run(written, test, "--actorflow-seed", str(seed))
        said.stdout.fnmatch_lines([f"*crash point * of 6, a sample of * by --actorflow-seed {seed})"])
        assert [line for line in said.outlines if " again " in line] == every


def test_two_crashes_in_a_row_are_tried_too(written: pytest.Pytester) -> None:
    test = """
    @step
    def act() -> None: ...

    class Acts(Workflow[None]):
        async def run(self) -> None:
            await act()

    @pytest.mark.survives(pairs=40, faults=["before"])
    async def test_it(actorflow):
        await (await actorflow.start(Acts(), key="a")).result()
        assert actorflow.crashes < 2
    """

    said = says(written, test, "the test failed at test_shop.py:*: assert actorflow.crashes < 2")
    said.stdout.fnmatch_lines(["*--actorflow-crash 'before commit ?; before commit ?'"])


def test_what_is_meant_to_differ_is_ignored(written: pytest.Pytester) -> None:
    test = """
    @pytest.mark.survives(ignore=["Bank.charged"])
    async def test_an_order(actorflow):
        actorflow.use(resources=[Bank()])
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await run.tell(Approve(by="bob"))
        assert await run.result()
    """

    passes(written, test)


def test_a_side_effect_outside_a_step_is_found_and_explained(written: pytest.Pytester) -> None:
    test = """
    MAILS = []

    class Notify(Workflow[None]):
        async def run(self) -> None:
            await ship("ann")
            MAILS.append("it is on its way")
            await ship("bob")

    @pytest.mark.survives
    async def test_a_mail_is_sent(actorflow):
        run = await actorflow.start(Notify(), key="n-1")
        await run.result()
    """

    says(
        written,
        test,
        "does not survive",
        "then      `MAILS` holds 2 things; without the crash 1",
        "more: 'it is on its way'",
        "because   `Notify.run` changed `MAILS` itself, outside of any step, and did so in 2 lives, at test_shop.py:*: MAILS*",
        "to do     Move that line into a function with @step, and await it*",
    )


def test_a_counter_and_a_mock_that_only_the_test_asserts_on_are_explained_too(written: pytest.Pytester) -> None:
    counter = """
    COUNT = 0

    class Notify(Workflow[None]):
        async def run(self) -> None:
            global COUNT
            COUNT += 1
            await ship("ann")

    @pytest.mark.survives
    async def test_it(actorflow):
        await (await actorflow.start(Notify(), key="n-1")).result()
    """
    mock = """
    from unittest.mock import Mock

    @pytest.mark.survives
    async def test_it(actorflow, monkeypatch):
        post = Mock()

        class Notify(Workflow[None]):
            async def run(self) -> None:
                post("https://example.org")
                await ship("ann")

        await (await actorflow.start(Notify(), key="n-1")).result()
        post.assert_called_once()
    """

    says(written, counter, "`COUNT` is 2; without the crash it is 1", "`Notify.run` changed `COUNT` itself*: COUNT += 1")
    says(
        written,
        mock,
        "the test failed at test_shop.py:*: post.assert_called_once()",
        "`Notify.run` changed `post.mock_calls` itself*",
    )


def test_code_that_decides_by_chance_is_found_and_explained(written: pytest.Pytester) -> None:
    test = """
    @step
    def pay(name: str) -> str:
        return name

    class Lottery(Workflow[str]):
        async def run(self) -> str:
            await ship("first")
            return await ship("ann") if random.random() < 0.5 else await pay("bob")

    @pytest.mark.survives
    async def test_it(actorflow):
        random.seed(2)
        await (await actorflow.start(Lottery(), key="n-1")).result()
    """

    says(
        written,
        test,
        "the code asks for step :*, but recorded is step :*",
        "because   durable code took another way*",
        "to do     Take time and chance from `self.now()`*",
    )


def test_the_command_that_a_failure_names_repeats_it_and_only_it(written: pytest.Pytester) -> None:
    test = """
    RUNS = []

    @pytest.mark.survives
    async def test_an_order(actorflow, request):
        actorflow.use(resources=[Bank()])
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await run.tell(Approve(by="bob"))
        assert await run.result()
    """
    result = run(written, test)
    # Where CI is set, pytest does not cut its summary short: there the same line stands a second time.
    [again] = {line.split("--actorflow-crash")[1].strip(" '") for line in result.outlines if " again " in line}

    says(written, test, "does not survive (crash point 1 of 1)", "`Bank.charged` holds 2", options=("--actorflow-crash", again))
    passes(written, test, "--actorflow-crash", "after commit 1")
    refused = run(written, test, "--actorflow-crash", "beside commit 1")
    assert "'beside commit 1' is no crash point" in refused.stdout.str() + refused.stderr.str()


def test_an_invariant_is_looked_at_whenever_a_process_has_ended(written: pytest.Pytester) -> None:
    test = """
    ACCOUNTS = {"ann": 10, "bob": 0}

    @step
    async def move(n: int) -> None:
        if current_step().attempt == 1 and ACCOUNTS["ann"] == 10:
            ACCOUNTS["ann"] -= n
            await anyio.sleep(1)
            ACCOUNTS["bob"] += n

    class Move(Workflow[None]):
        async def run(self) -> None:
            await move(3)

    def money_is_conserved(bank):
        assert sum(bank.values()) == 10, bank

    @pytest.fixture
    def bank():
        return ACCOUNTS

    @pytest.mark.survives(invariant=money_is_conserved, ignore="ACCOUNTS")
    async def test_it(actorflow, bank):
        await (await actorflow.start(Move(), key="m")).result()
    """

    says(
        written,
        test,
        "the process died while `move` was running (it waited at test_shop.py:*)",
        "the invariant `money_is_conserved` does not hold: {'ann': 7, 'bob': 0}",
        "again *'await *'",
    )


def test_what_only_a_function_knows_of_the_world_is_watched_by_it(written: pytest.Pytester) -> None:
    test = """
    import sqlite3
    DATABASE = sqlite3.connect(":memory:", isolation_level=None)
    DATABASE.execute("CREATE TABLE orders (name)")

    @step
    async def insert(name: str) -> None:
        DATABASE.execute("INSERT INTO orders VALUES (?)", (name,))

    class Insert(Workflow[None]):
        async def run(self) -> None:
            await insert("ann")

    @pytest.fixture(autouse=True)
    def empty():
        DATABASE.execute("DELETE FROM orders")

    def rows():
        return DATABASE.execute("SELECT name FROM orders").fetchall()

    @pytest.mark.survives(watch=rows)
    async def test_it(actorflow):
        await (await actorflow.start(Insert(), key="m")).result()
    """

    says(written, test, "`watch` holds 2 things; without the crash 1", "because   the step `insert` changed `watch` 2 times*")


def test_files_of_a_test_are_watched_and_each_run_has_its_own(written: pytest.Pytester) -> None:
    test = """
    @step
    def write(path: str) -> None:
        with open(path, "a") as file:
            file.write("paid\\n")

    class Write(Workflow[None]):
        path: str
        async def run(self) -> None:
            await write(self.path)

    @pytest.mark.survives
    async def test_it(actorflow, tmp_path):
        await (await actorflow.start(Write(str(tmp_path / "ledger")), key="w")).result()
        assert (tmp_path / "ledger").read_text().startswith("paid")
    """

    says(written, test, "`tmp_path/ledger` holds 2 things; without the crash 1", "more: 'paid'")


def test_a_test_that_cannot_be_repeated_is_told_so(written: pytest.Pytester) -> None:
    test = """
    class Once:
        def __init__(self):
            self.used = False

    ONCE = Once()

    @pytest.mark.survives
    async def test_it(actorflow):
        assert not ONCE.used
        ONCE.used = True
        actorflow.mock(charge, returns=1)
        await actorflow.start(Checkout("ann"), key="o-1")
    """

    says(written, test, "this test passes, and fails when it is run a second time, with no fault at all", "a fixture of its own")


def test_a_test_without_a_process_is_told_so(written: pytest.Pytester) -> None:
    test = """
    @pytest.mark.survives
    async def test_it(actorflow): ...
    """

    says(written, test, "this test starts nothing with `actorflow`, so there is no process that could die")


def test_what_is_due_after_a_skip_is_done_also_when_the_store_is_late(written: pytest.Pytester) -> None:
    test = """
    @pytest.mark.survives
    async def test_it(actorflow):
        actorflow.mock(charge, returns=1)
        run = await actorflow.start(Checkout("ann"), key="o-1")
        await actorflow.skip("3 days")
        assert (await run.status()).status == "failed"
    """

    passes(written, test)


def test_asks_at_the_same_time_may_be_answered_in_any_order(written: pytest.Pytester) -> None:
    test = """
    class Add(Message[int]):
        n: int

    class Sum(Actor):
        total: int = 0

        @handler
        async def add(self, m: Add) -> int:
            self.total += m.n
            return self.total

    @pytest.mark.survives(points=40)
    async def test_it(actorflow):
        one = actorflow.at(Sum, "s")
        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(one.ask, Add(n))
        assert await one.ask(Add(0)) == 3
    """

    passes(written, test)


def test_a_service_that_does_not_start_because_of_its_store_is_started_again(written: pytest.Pytester) -> None:
    test = """
    class Get(Message[int]): ...

    class Stock(Actor):
        left: int

        @handler
        async def get(self, m: Get) -> int:
            return self.left

    @pytest.mark.survives(points=40)
    async def test_it(actorflow):
        actorflow.use(tree=[Supervisor("shop", children=[Child(Stock(7), "main")])])
        assert await actorflow.at(Stock, "main").ask(Get()) == 7
    """

    passes(written, test)


def test_a_test_that_fails_or_is_skipped_without_any_fault_does_so_as_any_other(written: pytest.Pytester) -> None:
    test = """
    @pytest.mark.survives
    async def test_wrong(actorflow):
        assert 1 == 2

    @pytest.mark.survives
    async def test_skipped(actorflow):
        pytest.skip("not today")
    """

    result = run(written, test)

    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["E       assert 1 == 2"])


def test_answers_that_depend_on_the_moment_or_on_chance_are_not_compared_and_others_are(written: pytest.Pytester) -> None:
    test = """
    STARTS = 0

    @step
    def count() -> int:
        global STARTS
        STARTS += 1
        return STARTS

    class Says(Workflow[str]):
        moment: bool

        async def run(self) -> str:
            n = await count()
            return f"{self.now()} {self.random()} {self.uuid()}" if self.moment else str(n)

    @pytest.mark.survives(ignore=["STARTS"])
    @pytest.mark.parametrize("moment", [True, False])
    async def test_it(actorflow, moment):
        await (await actorflow.start(Says(moment), key="s")).result()
    """

    result = run(written, test)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(['*result of Says/s was "2"; without the crash "1"*'])


def test_tests_of_classes_and_with_teardowns_are_run_anew_each_time(written: pytest.Pytester) -> None:
    test = """
    LOG = []

    class TestShop:
        @pytest.fixture(autouse=True)
        def bank(self, actorflow):
            self.bank = KeyedBank()
            actorflow.use(resources=[self.bank])
            yield
            LOG.append(len(self.bank.charged))

        @pytest.mark.survives(points=4, pairs=0)
        async def test_it(self, actorflow):
            run = await actorflow.start(SafeCheckout("ann"), key="o")
            await run.tell(Approve(by="bob"))
            await run.result()
            assert len(self.bank.charged) == 1

    def test_log():
        print("LOG", len(LOG), set(LOG))
    """

    passes(written, test, "-s", passed=2).stdout.fnmatch_lines(["*LOG * {1}*"])
