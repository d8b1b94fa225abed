"""Steps: calls with effects, whose outcomes are recorded.

`@step` makes a plain function of a function: outside a workflow it is just that function. Called by durable code it yields
a `StepCall`; the shell performs it, records its outcome, and only then does anything follow from it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, get_args, get_type_hints, overload

from attrs import define, field

from actorflow.attempt import Mark, StepInfo, current
from actorflow.clock import Duration, seconds
from actorflow.codec import Coder, RecordCoder, coder
from actorflow.errors import BadDefinition, OutsideTurn, StepInsideStep
from actorflow.failures import decode_failure
from actorflow.kernel.branches import driven, here
from actorflow.kernel.requests import Request
from actorflow.policies import retry as retrying
from actorflow.policies.retry import Retry
from actorflow.records import Entry
from actorflow.resources import injected

P = ParamSpec("P")
T = TypeVar("T")

OnInterrupt = Literal["retry", "fail", "ask"]
RunIn = Literal["thread", "process"]

SCALARS = frozenset((str, int, bool, float, bytes, type(None)))  #: deeply immutable, and exact at rest
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
RESERVED_NAMES = frozenset(("gather", "task"))


@define(eq=False, repr=False)
class Step:
    """The declaration behind a step function.

    What every call looks up is a plain slot: a property or an attribute of the class costs ten times as much. Annotations are
    not read before the first call: they may name what is defined below the function.
    """

    fn: Callable[..., Any]
    name: str
    was: tuple[str, ...] = ()
    fails: tuple[type[Exception], ...] = ()
    retry: Retry = retrying.DEFAULT
    timeout_s: float | None = None
    undo: Callable[..., Any] | None = None
    on_interrupt: OnInterrupt = "retry"
    run_in: RunIn = "thread"
    localns: dict[str, Any] | None = None  #: names that a function defined in a function may mean in its annotations
    receiver: str | None = None  #: the first parameter of a method; recorded as null
    is_async: bool = field(init=False)
    undo_ref: str | None = field(init=False)  #: the reference that its entries carry: only what can be undone has one
    of_argument: str = field(init=False)  #: what a value is, in messages
    of_outcome: str = field(init=False)
    positional: tuple[str, ...] = field(init=False, default=())  #: parameters, if all are; else empty
    known_coder: RecordCoder | None = field(init=False, default=None)  #: `coder`, once it was asked for
    known_outcome: Coder[Any] | None = field(init=False, default=None)  #: `outcome`, likewise
    _signature: inspect.Signature | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.is_async = inspect.iscoroutinefunction(self.fn)
        self.undo_ref = self.ref if self.undo is not None else None
        self.of_argument, self.of_outcome = f"argument of step {self.name}", f"outcome of step {self.name}"
        with suppress(TypeError, ValueError):  # It has none that can be read: told when it is called.
            self._signature = inspect.signature(self.fn)
            parameters = self._signature.parameters
            self.positional = tuple(parameters) if all(each.kind in _PLAIN for each in parameters.values()) else ()

    @property
    def ref(self) -> str:
        """How to find it again in another process."""
        return f"{self.fn.__module__}:{self.fn.__qualname__}"

    @property
    def hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.fn, localns=self.localns, include_extras=True)
        except NameError as error:
            why = f"step {self.name}: its annotations cannot be read ({error})."
            raise BadDefinition(f"{why} Define or import the type where the step is defined.") from error

    @property
    def signature(self) -> inspect.Signature:
        return self._signature or inspect.signature(self.fn)

    @property
    def coder(self) -> RecordCoder:
        """Of its arguments."""
        if self.known_coder is None:
            self.known_coder = self._coder()
        return self.known_coder

    @property
    def outcome(self) -> Coder[Any]:
        """The coder of what it returns."""
        if self.known_outcome is None:
            self.known_outcome = coder(self.hints.get("return", Any))
        return self.known_outcome

    def _coder(self) -> RecordCoder:
        hints, types = self.hints, dict[str, Any]()
        defaults: dict[str, Callable[[], Any]] = {}
        for name, parameter in self.signature.parameters.items():
            of = type(None) if name == self.receiver else hints.get(name, Any)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                of = list[of]  # type: ignore[valid-type]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                of = dict[str, of]  # type: ignore[valid-type]
            types[name] = of
            if parameter.default is not inspect.Parameter.empty:
                defaults[name] = functools.partial(getattr, parameter, "default")
        return RecordCoder(types, defaults)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, as they are recorded.

        Raises:
            TypeError: They do not fit the signature.
        """
        if not kwargs and len(args) == len(self.positional):
            return dict(zip(self.positional, args))  # noqa: B905  (just compared)
        signature = self.signature
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                arguments[name] = list(arguments[name])
        return arguments

    def split(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Recorded arguments as positional ones and those by name."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            match parameter.kind:
                case inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD:
                    args.append(arguments[name])
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(arguments[name])
                case inspect.Parameter.KEYWORD_ONLY:
                    kwargs[name] = arguments[name]
                case _:
                    kwargs.update(arguments[name])
        return args, kwargs

    def call(self, arguments: dict[str, Any]) -> Any:
        """Call the function with recorded arguments."""
        if len(arguments) == len(self.positional):
            return self.fn(*arguments.values())
        args, kwargs = self.split(arguments)
        return self.fn(*args, **kwargs)


class StepCall(Request):
    """Durable code calls a step."""

    __slots__ = ("arguments", "name", "payload", "ref", "step", "was")
    kind = "step"

    def __init__(self, step: Step, arguments: dict[str, Any]) -> None:
        self.step: Step = step
        self.arguments: dict[str, Any] = arguments
        self.name: str = step.name
        self.was: tuple[str, ...] = step.was
        self.ref: str | None = step.undo_ref
        # Encoded before anything happens: what cannot be stored is refused at the call.
        self.payload: bytes = (step.known_coder or step.coder).encode(arguments, step.of_argument)

    def input(self) -> bytes:
        return self.payload

    def same_input(self, recorded: bytes | None) -> bool:
        if recorded == self.payload:
            return True
        if recorded is None:
            return False
        what = f"recorded input of step {self.name}"
        return bool(self.step.coder.decode(recorded, what) == self.step.coder.decode(self.payload, what))

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.status != "ok":
            return None, decode_failure(entry.outcome or b"null")
        step = self.step
        return (step.known_outcome or step.outcome).decode(entry.outcome or b"null", step.of_outcome), None

    def copied_arguments(self) -> dict[str, Any]:
        """The arguments as another process would get them: the step shares no object with durable code."""
        if SCALARS.issuperset(map(type, self.arguments.values())):
            return self.arguments
        return self.step.coder.decode(self.payload, f"argument of step {self.name}")


_declared: dict[str, Step] = {}


def declaration(fn: object) -> Step | None:
    """The declaration behind a step function, or None."""
    found = getattr(fn, "__actorflow_step__", None)
    return found if isinstance(found, Step) else None


def find_step(ref: str) -> Step | None:
    """The step that *ref* names, importing its module if need be; None if there is none any more."""
    if ref not in _declared:
        module, _, path = ref.partition(":")
        target: Any = sys.modules.get(module)
        if target is None:
            try:
                target = __import__(module, fromlist=["_"])
            except ImportError:
                return None
        for part in path.split("."):
            target = getattr(target, part, None)
        return declaration(target)
    return _declared[ref]


def steps_called(name: str) -> list[Step]:
    """The declared steps that record under that name: more than one, if modules have functions of the same name."""
    return [declared for declared in _declared.values() if name in (declared.name, *declared.was)]


def plain(fn: Callable[P, Coroutine[object, None, T]]) -> Callable[P, Any]:
    """The function behind a step: calling it records nothing, retries nothing and undoes nothing."""
    return cast("Callable[P, Any]", getattr(declaration(fn), "fn", fn))


class StepMaker(Protocol):
    """What `step(retry=...)` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[object, None, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Callable[P, Coroutine[object, None, T]]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[object, None, T]]: ...
@overload
def step(fn: Callable[P, T], /) -> Callable[P, Coroutine[object, None, T]]: ...
@overload
def step(
    *,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    undo: Callable[..., Any] | None = None,
    name: str | None = None,
    was: tuple[str, ...] = (),
    fails: tuple[type[Exception], ...] = (),
    on_interrupt: OnInterrupt = "retry",
    run_in: RunIn = "thread",
) -> StepMaker: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    undo: Callable[..., Any] | None = None,
    name: str | None = None,
    was: tuple[str, ...] = (),
    fails: tuple[type[Exception], ...] = (),
    on_interrupt: OnInterrupt = "retry",
    run_in: RunIn = "thread",
) -> Any:
    """Declare a function a step: performed once as far as the journal knows, its outcome recorded before it is used.

    An `async def` runs on your own loop and may await anything; a plain `def` runs in a thread, or with
    `run_in="process"` in a process of its own. Arguments and outcome pass through the codec, so annotate them.

    Args:
        retry: When to try again. Default: transient errors get three tries, 1 s doubling with jitter; others one.
        timeout: How long one attempt may take. Whether a timed-out attempt had its effect is unknown: see *on_interrupt*.
        undo: Called with the step's arguments (and `outcome=`, if it has that parameter) when the run fails by `Abort` or
            is cancelled.
        name: What it is recorded as, instead of its `__qualname__`.
        was: Names that it was recorded as before.
        fails: Exceptions that are business failures: recorded, never retried.
        on_interrupt: What becomes of an attempt whose end nobody saw: "retry" (at least once, with a stable idempotency
            key), "fail" (at most once: raises `StepInterrupted`) or "ask" (the run pauses until an operator decides).
        run_in: Where a plain `def` runs.
    """
    options: dict[str, Any] = {"retry": retry, "timeout": timeout, "undo": undo, "name": name, "was": was, "fails": fails}
    options |= {"on_interrupt": on_interrupt, "run_in": run_in}
    # Annotations of a function in a function mean that function's names.
    frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    localns = frame.f_locals if frame.f_locals is not frame.f_globals else None
    if fn is not None:
        return _declare(fn, localns, options)
    return functools.partial(_declare, localns=localns, options=options)


def with_options(fn: Callable[P, Coroutine[object, None, T]], **options: Any) -> Callable[P, Coroutine[object, None, T]]:
    """The same step with other options (`retry`, `timeout`, `undo`, ...) for this call.

    >>> @step
    ... async def charge(cents: int) -> int:
    ...     return cents
    >>> declaration(with_options(charge, timeout="5s")).timeout_s
    5.0
    """
    found = declaration(fn)
    if found is None:
        raise BadDefinition(f"{fn!r} is no step: decorate it with @step first.")
    same = ("retry", "undo", "fails", "name", "was", "on_interrupt", "run_in")
    kept: dict[str, Any] = {"timeout": found.timeout_s, **{name: getattr(found, name) for name in same}}
    unknown = options.keys() - kept.keys()
    if unknown:
        raise BadDefinition(f"with_options knows {', '.join(sorted(kept))}; not {', '.join(sorted(unknown))}.")
    return cast("Callable[P, Coroutine[object, None, T]]", _wrap(_make(found.fn, found.localns, kept | options)))


def _declare(fn: Callable[..., Any], localns: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    declared = _make(fn, localns, options)
    _declared[declared.ref] = declared
    return _wrap(declared)


def _make(fn: Callable[..., Any], localns: dict[str, Any] | None, options: dict[str, Any]) -> Step:
    if isinstance(fn, staticmethod | classmethod):
        raise BadDefinition("write @staticmethod above @step, not below it: a step is a plain function.")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise BadDefinition(f"{fn.__qualname__} is a generator, and a step has one outcome. For many items use `self.each`.")
    name = options["name"] or getattr(fn, "__qualname__", None)
    if name is None or (options["name"] is None and "<lambda>" in name):
        raise BadDefinition(f"{fn!r} has no name to be recorded under: give it `name=`.")
    if "/" in name or "#" in name or name.startswith(("self.", "~")) or name in RESERVED_NAMES:
        raise BadDefinition(
            f'a step cannot be named {name!r}: "/", "#", "self.", "~" and the names of verbs are taken. Give it `name=`.'
        )
    _check_options(name, options)
    return Step(
        injected(fn, localns, options["run_in"]),
        name,
        was=tuple(options["was"]),
        fails=tuple(options["fails"]),
        retry=retrying.chosen(name, options["retry"], on_interrupt=options["on_interrupt"], fails=tuple(options["fails"])),
        timeout_s=None if options["timeout"] is None else seconds(options["timeout"]),
        undo=options["undo"],
        on_interrupt=options["on_interrupt"],
        run_in=options["run_in"],
        localns=localns,
    )


def _check_options(name: str, options: dict[str, Any]) -> None:
    for option, known in (("on_interrupt", get_args(OnInterrupt)), ("run_in", get_args(RunIn))):
        if options[option] not in known:
            raise BadDefinition(f"step {name}: {option}={options[option]!r} is none of {', '.join(map(repr, known))}.")
    for option, of in (("was", str), ("fails", type)):
        given = options[option]
        if not isinstance(given, (tuple, list)) or not all(isinstance(each, of) for each in cast("Iterable[object]", given)):
            kind = "names" if of is str else "exception classes"
            raise BadDefinition(f"step {name}: {option}={given!r} is no tuple of {kind}. One alone is written (x,).")


def _wrap(declared: Step) -> Callable[..., Coroutine[object, None, Any]]:
    fn, name = declared.fn, declared.name

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        turn = here.turn
        if turn is not None:
            if turn.names.get(name) is not fn:
                turn.check_name(name, fn)
            return await StepCall(declared, declared.bind(args, kwargs))
        driven()  # Raises, if this code is being dropped.
        match current.get():
            case StepInfo(name=outer):
                raise StepInsideStep(name, outer)
            case Mark():
                raise OutsideTurn(f"step {name}, in a task that durable code started,")
            case _:
                return await fn(*args, **kwargs) if declared.is_async else fn(*args, **kwargs)

    wrapper.__actorflow_step__ = declared  # type: ignore[attr-defined]
    return wrapper
