"""Apps that a runtime can be installed in, told apart by what they have and not by importing what they come from.

A lifespan is wrapped from inside: first what the app starts, then the runtime, and backwards. So a step that goes on after a
restart finds what the app made, and what the app made is there until the last step has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from actorflow.errors import BadDefinition

NAME = "actorflow"
"""What it is called in the state of an app, and in an ASGI scope."""

Entered = AbstractAsyncContextManager[Any]
"""What runs from the start of an app to its end."""


def install(runtime: Entered, app: Any, *, taken: str | None) -> None:
    """Enter the runtime in the app's lifespan.

    Args:
        runtime: What to enter.
        app: Where.
        taken: Why the runtime cannot be installed, if so.

    Raises:
        BadDefinition: It cannot.
    """
    name = type(app).__qualname__
    starlette, litestar = _is_starlette(app), _is_litestar(app)
    if not (starlette or litestar):
        raise BadDefinition(_unknown(app))
    if getattr(app.state, NAME, None) is not None:
        raise BadDefinition(f"this {name} has a runtime already (app.state.{NAME}). One runtime takes all your actors.")
    if taken is not None:
        raise BadDefinition(taken)
    if starlette:
        if app.middleware_stack is not None:  # It is made at the first call, which is that of the lifespan.
            raise BadDefinition(_started(name))
        app.router.lifespan_context = _around(runtime, app.router.lifespan_context)
    else:
        if getattr(app.event_emitter, "_exit_stack", None) is not None:
            raise BadDefinition(_started(name))
        app._lifespan_managers.append(runtime)  # noqa: SLF001  (the last one is entered last, and left first)
    show(runtime, app)


def show(runtime: Entered, app: Any) -> None:
    """Let the app's handlers find it."""
    state = getattr(app, "state", None)
    if state is not None:
        setattr(state, NAME, runtime)


def _around(runtime: Entered, own: Any) -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[Any]:
        async with own(app) as state, runtime:
            yield state

    return lifespan


def _is_starlette(app: Any) -> bool:
    router = getattr(app, "router", None)
    return hasattr(app, "state") and hasattr(app, "middleware_stack") and callable(getattr(router, "lifespan_context", None))


def _is_litestar(app: Any) -> bool:
    managers = getattr(app, "_lifespan_managers", None)
    return hasattr(app, "state") and hasattr(app, "event_emitter") and isinstance(managers, list)


def _started(name: str) -> str:
    return f"this {name} has started already, and its lifespan has begun without the runtime. Call install where the app is made."


def _unknown(app: Any) -> str:
    said = f"it is not known how to install a runtime in {app!r:.80}"
    if callable(getattr(app, "wsgi_app", None)):
        return f"{said}: a WSGI app has no lifespan. Use `SyncRuntime` there."
    if hasattr(app, "event_emitter") and hasattr(app, "asgi_handler"):
        return f"{said}. Pass it when the app is made: `Litestar(..., lifespan=[runtime.lifespan])`."
    return (
        f"{said}. Starlette, FastAPI and Litestar are known; for another ASGI app let the server run `runtime.asgi(app)`, and "
        f"anywhere else write `async with runtime:` around what serves."
    )
