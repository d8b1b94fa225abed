"""From a history that fails to the shortest one that does, by Hypothesis (https://hypothesis.readthedocs.io)."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, Verbosity, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from actorflow.testing.plans import Plan, less_of, plan_of

KEPT_OF = 31  #: of so many parts a first guess drops one: small enough to fail still, and Hypothesis drops what it can from there

seeds: st.SearchStrategy[int] = st.integers(0, 2**32 - 1)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan, each choice of it made by Hypothesis, so that it knows how to make less of it."""
    return plan_of(draw(st.randoms(use_true_random=False)), seed=draw(seeds))


@st.composite
def parts_of(draw: st.DrawFn, plan: Plan) -> Plan:
    """The same plan with fewer faults, acts and operations."""
    kept = st.integers(0, KEPT_OF)
    return less_of(plan, lambda: draw(kept) > 0)


def shrunk(plan: Plan, fails: Callable[[Plan], bool], *, tries: int = 400) -> Plan:
    """The smallest part of *plan* that still fails, as far as *tries* histories find it.

    Args:
        plan: One that fails.
        fails: Lives through a plan; true if it fails.
        tries: How many histories that may take.
    """
    chosen = settings(
        max_examples=tries,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        verbosity=Verbosity.quiet,
    )
    try:
        return find(parts_of(plan), fails, settings=chosen)
    except NoSuchExample:
        return plan
