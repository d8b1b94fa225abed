"""What is promised to web apps: the runtime runs as long as the app does, inside of what the app itself makes and unmakes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest

from actorflow import NotRunning, Runtime, StoreBusy, Workflow, step
from actorflow.errors import BadDefinition

pytestmark = pytest.mark.anyio

Message = MutableMapping[str, Any]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@step
async def double(n: int) -> int:
    return 2 * n


class Double(Workflow[int]):
    n: int

    async def run(self) -> int:
        return await double(self.n)


class Noted(Runtime):
    """A runtime that notes when it begins and ends."""

    def __init__(self, notes: list[str], url: str = "memory://") -> None:
        super().__init__(url, actors=[Double])
        self.notes = notes

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.notes.append("runtime begins")
        return self

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036  (as it came)
        await super().__aexit__(*error)
        self.notes.append("runtime ends")


# --- a server, by hand --------------------------------------------------------------------------------------------------


class Server:
    """Plays the server of an ASGI app: its lifespan, and single requests."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.told: list[Message] = []
        self.raised: Exception | None = None
        self._shutdown = anyio.Event()
        self._answered = anyio.Event()
        self._asked = 0

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._shutdown.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        self.told.append(message)
        self._answered.set()

    async def _lifespan(self) -> None:
        try:
            await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}, self._receive, self._send)
        except Exception as error:  # A server logs it.
            self.raised = error
        self._answered.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(self._lifespan)
                await self._answered.wait()
                yield self
                self._shutdown.set()

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.told]

    async def get(self, path: str = "/") -> tuple[int, bytes]:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": dict(self.state),
        }
        sent: list[Message] = []
        requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            for request in requests:
                return request
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


# --- any ASGI app -------------------------------------------------------------------------------------------------------


def app_with_lifespan(notes: list[str], *, broken: str = "") -> Callable[[Any, Any, Any], Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            run = await scope["actorflow"].start(Double(4), key=scope["path"])
            await answer(send, b"%d" % await run.result())
            return
        await receive()
        notes.append("app begins")
        if broken == "start":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        notes.append("app ends")
        if broken == "end":
            raise RuntimeError("could not end")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_an_asgi_app_begins_first_and_ends_last() -> None:
    notes: list[str] = []
    runtime = Noted(notes)

    async with Server(runtime.asgi(app_with_lifespan(notes))).running() as server:
        assert server.state == {"actorflow": runtime}
        assert await server.get("/a") == (200, b"8")

    assert notes == ["app begins", "runtime begins", "runtime ends", "app ends"]
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert runtime.drained is not None


async def test_an_app_without_a_lifespan_needs_none(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("HTTP only")
        await answer(send, b"%d" % len(await scope["actorflow"].counts()))

    notes: list[str] = []
    with caplog.at_level(logging.INFO, "actorflow"):
        async with Server(Noted(notes).asgi(app)).running() as server:
            assert await server.get() == (200, b"0")

    assert notes == ["runtime begins", "runtime ends"]
    assert server.types == ["startup.complete", "shutdown.complete"]
    assert "the app has no lifespan (ValueError: HTTP only)" in caplog.text


async def test_an_app_that_ignores_its_lifespan_needs_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    async with Server(Noted([]).asgi(app)).running() as server:
        pass

    assert server.types == ["startup.complete", "shutdown.complete"]


async def test_an_app_that_cannot_start_is_not_joined_by_the_runtime() -> None:
    notes: list[str] = []

    async with Server(Noted(notes).asgi(app_with_lifespan(notes, broken="start"))).running() as server:
        pass

    assert notes == ["app begins"]
    assert server.told == [{"type": "lifespan.startup.failed", "message": "no database"}]


async def test_a_runtime_that_cannot_begin_ends_the_app_and_tells_the_server_why(tmp_path: Any) -> None:
    notes: list[str] = []
    url = f"sqlite:///{tmp_path}/shop.db"

    async with (
        Runtime(url, actors=[Double], socket=False),
        Server(Noted(notes, url).asgi(app_with_lifespan(notes))).running() as server,
    ):
        pass

    assert notes == ["app begins", "app ends"]
    assert server.types == ["startup.failed"]
    assert "StoreBusy" in server.told[0]["message"]
    assert isinstance(server.raised, StoreBusy)


async def test_an_app_that_ends_badly_is_reported_after_the_runtime_has_ended() -> None:
    notes: list[str] = []

    async with Server(Noted(notes).asgi(app_with_lifespan(notes, broken="end"))).running() as server:
        pass

    assert notes[2:] == ["runtime ends", "app ends"]
    assert server.types == ["startup.complete", "shutdown.failed"]
    assert "could not end" in server.told[1]["message"]


async def test_a_server_without_lifespans_is_told_to_have_them() -> None:
    server = Server(Noted([]).asgi(app_with_lifespan([])))

    with pytest.raises(NotRunning, match="Use a server that has lifespans"):
        await server.get()


async def test_a_server_that_cancels_the_lifespan_gets_its_drain_too() -> None:
    runtime = Noted([])

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            server = Server(runtime.asgi(app_with_lifespan([])))
            group.start_soon(server._lifespan)
            await server._answered.wait()
            group.cancel_scope.cancel()

    assert runtime.drained is not None


# --- Starlette and FastAPI ----------------------------------------------------------------------------------------------


def starlette_app(notes: list[str], kind: str) -> Any:
    pytest.importorskip(kind)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, int]]:
        notes.append("app begins")
        yield {"answer": 42}
        notes.append("app ends")

    if kind == "fastapi":
        from fastapi import FastAPI, Request

        api = FastAPI(lifespan=lifespan)

        async def get(request: Request) -> int:
            run = await request.app.state.actorflow.start(Double(request.state.answer), key=request.path_params["key"])
            return int(await run.result())

        get.__annotations__["request"] = Request  # Its name is none of this module, where FastAPI would look.
        api.get("/{key}")(get)
        return api

    from starlette.applications import Starlette
    from starlette.requests import Request as StarletteRequest
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def endpoint(request: StarletteRequest) -> Response:
        run = await request.app.state.actorflow.start(Double(request.state.answer), key=request.path_params["key"])
        return JSONResponse(await run.result())

    return Starlette(routes=[Route("/{key}", endpoint)], lifespan=lifespan)


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
async def test_an_app_keeps_its_own_lifespan_and_state(kind: str) -> None:
    notes: list[str] = []
    app, runtime = starlette_app(notes, kind), Noted(notes)

    runtime.install(app)
    async with Server(app).running() as server:
        assert app.state.actorflow is runtime
        assert await server.get("/a") == (200, b"84")

    assert notes == ["app begins", "runtime begins", "runtime ends", "app ends"]
    assert server.types == ["startup.complete", "shutdown.complete"]


async def test_the_handlers_of_an_app_that_has_no_lifespan_are_kept() -> None:
    fastapi = pytest.importorskip("fastapi")
    notes: list[str] = []
    app = fastapi.FastAPI()
    app.router.on_startup.append(lambda: notes.append("app begins"))
    app.router.on_shutdown.append(lambda: notes.append("app ends"))

    Noted(notes).install(app)
    async with Server(app).running():
        pass

    assert notes == ["app begins", "runtime begins", "runtime ends", "app ends"]


async def test_an_app_whose_runtime_cannot_begin_does_not_start(tmp_path: Any) -> None:
    notes: list[str] = []
    url = f"sqlite:///{tmp_path}/shop.db"
    app = starlette_app(notes, "starlette")
    Noted(notes, url).install(app)

    async with Runtime(url, actors=[Double], socket=False), Server(app).running() as server:
        pass

    assert server.types == ["startup.failed"]
    assert "is held by" in server.told[0]["message"]


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
async def test_an_app_that_has_started_takes_no_runtime(kind: str) -> None:
    app = starlette_app([], kind)

    async with Server(app).running():
        with pytest.raises(BadDefinition, match=r"has started already.*Call install where the app is made"):
            Noted([]).install(app)

    assert not hasattr(app.state, "actorflow")


async def test_an_app_takes_one_runtime_and_a_runtime_one_app() -> None:
    app, runtime = starlette_app([], "starlette"), Noted([])
    runtime.install(app)

    with pytest.raises(BadDefinition, match=r"has a runtime already \(app\.state\.actorflow\)"):
        Noted([]).install(app)
    with pytest.raises(BadDefinition, match="has a runtime already"):
        runtime.install(app)
    with pytest.raises(BadDefinition, match=r"is installed in <starlette.* already"):
        runtime.install(starlette_app([], "starlette"))
    with pytest.raises(BadDefinition, match="is installed in"):
        runtime.asgi(app)
    async with Noted([]) as entered:
        with pytest.raises(BadDefinition, match="was entered already"):
            entered.install(starlette_app([], "starlette"))


async def test_an_installed_runtime_that_has_not_begun_says_when_it_will() -> None:
    runtime = Noted([])
    runtime.install(starlette_app([], "starlette"))

    with pytest.raises(NotRunning, match="begins when the server starts the app's lifespan"):
        await runtime.start(Double(1), key="a")


async def test_an_app_without_a_lifespan_can_have_that_of_the_runtime() -> None:
    starlette = pytest.importorskip("starlette.applications")
    runtime = Noted([])
    app = starlette.Starlette(lifespan=runtime.lifespan)

    async with Server(app).running():
        assert await app.state.actorflow.counts() == {}

    assert runtime.notes == ["runtime begins", "runtime ends"]


# --- Litestar -----------------------------------------------------------------------------------------------------------


def litestar_app(notes: list[str], **options: Any) -> Any:
    litestar = pytest.importorskip("litestar")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        notes.append("app begins")
        yield
        notes.append("app ends")

    async def get(request: Any) -> int:
        run = await request.app.state.actorflow.start(Double(21), key=request.path_params["key"])
        return int(await run.result())

    get.__annotations__ = {"request": litestar.Request, "return": int}
    handler = litestar.get("/{key:str}")(get)
    return litestar.Litestar([handler], **{"lifespan": [lifespan], "openapi_config": None} | options)


async def test_a_litestar_app_keeps_its_own_lifespan() -> None:
    notes: list[str] = []
    app, runtime = litestar_app(notes), Noted(notes)

    runtime.install(app)
    async with Server(app).running() as server:
        assert app.state.actorflow is runtime
        assert await server.get("/a") == (200, b"42")
        with pytest.raises(BadDefinition, match="has a runtime already"):
            Noted([]).install(app)

    assert notes == ["app begins", "runtime begins", "runtime ends", "app ends"]


async def test_a_litestar_app_that_has_started_takes_no_runtime() -> None:
    app = litestar_app([])

    async with Server(app).running():
        with pytest.raises(BadDefinition, match="has started already"):
            Noted([]).install(app)


async def test_a_litestar_app_can_have_the_lifespan_of_the_runtime() -> None:
    notes: list[str] = []
    runtime = Noted(notes)

    async with Server(litestar_app(notes, lifespan=[runtime.lifespan])).running() as server:
        assert await server.get("/a") == (200, b"42")

    assert notes == ["runtime begins", "runtime ends"]


# --- Django, Flask, and what is not known -------------------------------------------------------------------------------


async def test_django_under_asgi_runs_inside_the_wrapper(anyio_backend: str) -> None:
    django = pytest.importorskip("django")
    if anyio_backend == "trio":
        pytest.skip("Django needs asyncio")
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
    from django.http import HttpResponse  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    async def get(request: Any, key: str) -> Any:
        run = await request.scope["actorflow"].start(Double(7), key=key)
        return HttpResponse(str(await run.result()))

    if not settings.configured:
        settings.configure(ROOT_URLCONF=(path("<str:key>", get),), ALLOWED_HOSTS=["localhost"], SECRET_KEY="x", USE_TZ=True)
        django.setup()
    notes: list[str] = []

    async with Server(Noted(notes).asgi(get_asgi_application())).running() as server:
        assert await server.get("/a") == (200, b"14")

    assert notes == ["runtime begins", "runtime ends"]


def test_an_app_that_is_not_known_is_refused_with_what_to_do() -> None:
    flask = pytest.importorskip("flask")

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    class OtherLitestar:
        event_emitter = asgi_handler = None

    with pytest.raises(BadDefinition, match=r"a WSGI app has no lifespan. Use `SyncRuntime` there"):
        Noted([]).install(flask.Flask("shop"))
    with pytest.raises(BadDefinition, match=r"let the server run `runtime.asgi\(app\)`"):
        Noted([]).install(app)
    with pytest.raises(BadDefinition, match=r"Litestar\(\.\.\., lifespan=\[runtime.lifespan\]\)"):
        Noted([]).install(OtherLitestar())
