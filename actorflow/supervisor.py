"""Supervisors as data: which actors are always there, who watches them, and what follows when they fail.

The rules are OTP's. What is wrong with a supervisor is said when it is written; `checked_tree` sees what only the whole
shows. The runtime brings the tree to life; `Supervisor.spec` is what the policy decides by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args

import attrs
from attrs import field, frozen

from actorflow.actor import Actor
from actorflow.clock import Duration, seconds
from actorflow.errors import BadDefinition, BadDuration, BadKey
from actorflow.policies.limits import checked_key
from actorflow.policies.restarts import RESTARTS_MAX, Backoff
from actorflow.policies.tree import AutoShutdown, ChildSpec, Decision, RestartType, Strategy, SupervisorSpec
from actorflow.value import Value
from actorflow.workflow import Workflow

if TYPE_CHECKING:
    A_co = TypeVar("A_co", bound=Actor, covariant=True)
else:
    A_co = TypeVar("A_co", covariant=True)

CHILDREN_MAX = 1_000
"""Children of one supervisor. They start and stop one after the other; what there are many of is not static."""
DEPTH_MAX = 16
"""Supervisors above each other. Restarts multiply with each level: with 3 of them, three levels allow 27 at the bottom."""


@frozen
class Child(Value, Generic[A_co]):
    """An actor that is always there, once, under this key.

    It is up when its `on_start` is durable; that has no deadline of its own, so give its steps one. It never leaves memory by
    itself. While it is down its mail waits, as much as its mailbox may hold.

    Args:
        actor: Its class, or an instance that carries the fields for its very first start.
        key: Which one of its class.
        restart: "permanent": whenever it ends; "transient": when it fails; "temporary": never.
        shutdown: How long it may take to finish its turn when it is to stop. Then its steps are cancelled, and the next life
            goes on with that turn.
        significant: Its end may end the supervisor, see `Supervisor.auto_shutdown`. Not for permanent ones.

    Raises:
        BadDefinition: It cannot be a child; says why and what to write.
    """

    actor: type[A_co] | A_co
    key: str
    restart: RestartType = field(default="permanent", kw_only=True)
    shutdown: Duration = field(default="5s", kw_only=True)
    significant: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        cls: Any = self.cls  # Not everybody checks types.
        place = f"Child({getattr(cls, '__qualname__', cls)}, {self.key!r:.80})"
        if not (isinstance(cls, type) and issubclass(cls, Actor) and attrs.has(cls)):
            raise BadDefinition(f"{place}: it is no Actor. Give it a class derived from Actor, or an instance of one.")
        if issubclass(cls, Workflow):
            raise BadDefinition(
                f"{place}: a Workflow runs once and ends, so it is no static child. Start it with `runtime.start(...)`, or "
                f"supervise an Actor that does."
            )
        missing = (
            [] if isinstance(self.actor, Actor) else [a.name for a in attrs.fields(cls) if a.init and a.default is attrs.NOTHING]
        )
        if missing:
            raise BadDefinition(
                f"{place}: nobody gives it {', '.join(missing)}. Pass an instance that carries its fields "
                f"(`Child({cls.__qualname__}({missing[0]}=...), ...)`), or give the field a default."
            )
        try:
            checked_key(self.key)
        except BadKey as error:
            raise BadDefinition(f"{place}: {error}") from error
        _checked_length(f"{place}: shutdown", self.shutdown)
        _checked_word(f"{place}: restart", self.restart, RestartType)
        _checked_significance(place, self.restart, significant=self.significant)

    @property
    def cls(self) -> type[Actor]:
        """The class of the actor."""
        return cast("type[Actor]", self.actor if isinstance(self.actor, type) else type(self.actor))

    @property
    def id(self) -> str:
        """Its name in the tree: "kind/key"."""
        return f"{self.cls.__kind__}/{self.key}"

    def spec(self) -> ChildSpec:
        """What the policy needs to know of it."""
        return ChildSpec(id=self.id, restart=self.restart, stop_s=seconds(self.shutdown), significant=self.significant)


def _children(children: Iterable[Child[Any] | Supervisor]) -> tuple[Child[Any] | Supervisor, ...]:
    try:
        return tuple(children)
    except TypeError:
        raise BadDefinition(f"Supervisor: children is {children!r:.80}. Write a list: children=[Child(...), ...].") from None


def _decisions(on: Mapping[type[Exception], Decision]) -> Mapping[type[Exception], Decision]:
    try:
        return MappingProxyType(dict(on))
    except (TypeError, ValueError):
        raise BadDefinition(f'Supervisor: on is {on!r:.80}. Write a dict: on={{ConnectionError: "restart", ...}}.') from None


@frozen
class Supervisor(Value):
    """Starts its children in order, watches them, and stops them in reverse order.

    Args:
        name: Of the supervisor; unique in the tree.
        strategy: Who is restarted with a child: "one_for_one": it alone; "rest_for_one": also those that started after it;
            "one_for_all": all.
        restarts: How many restarts within any `within` are allowed for all children together (those of a group count
            once). One more, and the supervisor stops its children and ends; that is a normal end, so its own supervisor
            restarts it only if it is permanent. 0 is never. One at the top stays down, and says so in the log as critical;
            the rest of the runtime goes on.
        within: The period, over 0.
        backoff: How long each restart waits.
        children: Actors, and supervisors with children of their own.
        auto_shutdown: Whether the supervisor ends when a significant child ended by itself: "any_significant", or the last
            one of them: "all_significant".
        on: What follows when a child failed with an exception of that class: the nearest class of its MRO counts.
            "restart" (as without an entry): by the child's restart type; "keep": it goes on as it is, uncounted (an actor
            that had started; others are restarted); "stop": it stays down; "escalate": the supervisor stops its children
            and fails with that exception.
        restart: As of a `Child`, for a supervisor that is one.
        significant: As of a `Child`.

    Raises:
        BadDefinition: It cannot be a supervisor; says why and what to write.
    """

    name: str
    strategy: Strategy = field(default="one_for_one", kw_only=True)
    restarts: int = field(default=3, kw_only=True)
    within: Duration = field(default="60s", kw_only=True)
    backoff: Backoff = field(factory=Backoff, kw_only=True)
    children: tuple[Child[Any] | Supervisor, ...] = field(default=(), converter=_children, kw_only=True)
    auto_shutdown: AutoShutdown = field(default="never", kw_only=True)
    on: Mapping[type[Exception], Decision] = field(
        factory=dict[type[Exception], Decision], converter=_decisions, hash=False, kw_only=True
    )
    restart: RestartType = field(default="permanent", kw_only=True)
    significant: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        place = f"Supervisor({self.name!r:.80})"
        _checked_name(place, self.name)
        _checked_word(f"{place}: strategy", self.strategy, Strategy)
        _checked_word(f"{place}: auto_shutdown", self.auto_shutdown, AutoShutdown)
        _checked_word(f"{place}: restart", self.restart, RestartType)
        _checked_significance(place, self.restart, significant=self.significant)
        if type(self.restarts) is not int or not 0 <= self.restarts <= RESTARTS_MAX:
            raise BadDefinition(
                f"{place}: restarts is {self.restarts!r:.80}. Write a whole number from 0 (never restart) to {RESTARTS_MAX:_}."
            )
        if not _checked_length(f"{place}: within", self.within) > 0:
            raise BadDefinition(f'{place}: within is {self.within!r}. A period is longer than 0, such as "60s".')
        if not isinstance(self.backoff, Backoff):  # pyright: ignore[reportUnnecessaryIsInstance]  # Not everybody checks types.
            raise BadDefinition(f'{place}: backoff is {self.backoff!r:.80}. Write Backoff("100ms", "30s").')
        error: Any
        for error, decision in self.on.items():
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise BadDefinition(f"{place}: on has {error!r:.80}. Its keys are classes of exceptions (control flow is none).")
            _checked_word(f"{place}: on[{error.__qualname__}]", decision, Decision)
        if len(self.children) > CHILDREN_MAX:
            raise BadDefinition(
                f"{place} has {len(self.children)} children, over {CHILDREN_MAX}. Split it, or let actors come to life when "
                f"they are told something."
            )
        for child in self.children:
            if not isinstance(child, Child | Supervisor):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise BadDefinition(f"{place}: {child!r:.80} is no child. Wrap an actor: Child({child!r:.80}, key).")
            if child.significant and self.auto_shutdown == "never":
                raise BadDefinition(
                    f'{place}: {child.id} is significant, but auto_shutdown is "never", so that means nothing. Write '
                    f'auto_shutdown="any_significant" or "all_significant", or take `significant` out.'
                )
        checked_tree((self,))

    @property
    def id(self) -> str:
        """Its name in the tree."""
        return self.name

    def spec(self) -> SupervisorSpec:
        """What the policy decides by. A nested supervisor has all the time to stop: else its subtree would leak."""
        return SupervisorSpec(
            name=self.name,
            strategy=self.strategy,
            restarts=self.restarts,
            within_s=seconds(self.within),
            backoff=self.backoff,
            auto_shutdown=self.auto_shutdown,
            on=tuple(self.on.items()),
            children=tuple(
                child.spec()
                if isinstance(child, Child)
                else ChildSpec(id=child.id, nested=True, restart=child.restart, stop_s=None, significant=child.significant)
                for child in self.children
            ),
        )


def checked_tree(supervisors: Iterable[Supervisor]) -> tuple[Supervisor, ...]:
    """The supervisors, if they can live in one tree side by side.

    Raises:
        BadDefinition: Two supervisors have one name, two children are the same actor, a supervisor is below itself, or the
            tree is over 16 levels deep.
    """
    tree = tuple(supervisors)
    places: dict[str, str] = {}
    for top in tree:
        if not isinstance(top, Supervisor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadDefinition(
                f'{top!r:.80} cannot stand at the top of a tree. Put it under a Supervisor("...", children=[...]).'
            )
        _visit(top, (), places)
    return tree


def actors_of(tree: Iterable[Child[Any] | Supervisor]) -> list[type[Actor]]:
    """The classes of all static children, each once, in the order of their start."""
    found: dict[type[Actor], None] = {}
    for node in tree:
        found.update(dict.fromkeys([node.cls] if isinstance(node, Child) else actors_of(node.children)))
    return list(found)


def _visit(node: Child[Any] | Supervisor, above: tuple[Supervisor, ...], places: dict[str, str]) -> None:
    path = " > ".join(parent.name for parent in above) or "the top"
    if isinstance(node, Supervisor):
        if any(parent is node for parent in above):
            raise BadDefinition(
                f"{path} > {node.name}: a supervisor cannot be below itself. Take it out of one of the two places."
            )
        if len(above) >= DEPTH_MAX:
            raise BadDefinition(f"{path} > {node.name}: the tree is over {DEPTH_MAX} levels deep. Make it flatter.")
    if node.id in places:
        what, remedy = (
            ("a supervisor", "Give each its own name")
            if isinstance(node, Supervisor)
            else ("an actor", "One actor has one supervisor: take one out, or give it another key")
        )
        raise BadDefinition(f"{node.id} is {what} that the tree has twice: under {places[node.id]} and under {path}. {remedy}.")
    places[node.id] = path
    if isinstance(node, Supervisor):
        for child in node.children:
            _visit(child, (*above, node), places)


# --- checks of single values -------------------------------------------------------------------------------------------


def _checked_name(place: str, name: object) -> None:
    if not isinstance(name, str) or not name.isprintable() or "/" in name or not 0 < len(name.encode()) <= 256:
        raise BadDefinition(f'{place}: a name is 1 to 256 printable bytes without "/" (that is how actors are named).')


def _checked_word(place: str, word: object, words: Any) -> None:
    if word not in get_args(words):
        raise BadDefinition(f"{place} is {word!r:.80}. Write one of {', '.join(map(repr, get_args(words)))}.")


def _checked_length(place: str, length: Duration) -> float:
    try:
        return seconds(length)
    except BadDuration as error:
        raise BadDefinition(f"{place}: {error}") from error


def _checked_significance(place: str, restart: RestartType, *, significant: bool) -> None:
    if significant and restart == "permanent":
        raise BadDefinition(
            f'{place}: a permanent child is always restarted, so its end is never significant. Write restart="transient" or '
            f'"temporary", or take `significant` out.'
        )
