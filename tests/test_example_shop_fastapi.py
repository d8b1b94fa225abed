"""The shop on FastAPI: orders are accepted once, approved once and charged once, over restarts of the server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

EXAMPLE = Path(__file__).parent.parent / "examples" / "shop_fastapi.py"
ORDER = {"id": "o-1", "cents": 4_200}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("shop_fastapi", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "shop_fastapi", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


def until_completed(shop: TestClient) -> dict[str, str]:
    while (state := shop.get("/orders/o-1").json())["status"] != "completed":
        assert state["status"] in ("running", "waiting")
    return dict(state)


def test_an_order_outlives_the_server_and_is_charged_once(example: Any, url: str) -> None:
    bank = example.Bank()
    with TestClient(example.make_app(url, bank)) as shop:
        placed = [shop.post("/orders", json=ORDER) for _ in range(2)]
    with TestClient(example.make_app(url, bank)) as shop:
        approved = shop.post("/orders/o-1/approval", json={"by": "ann"})
        state = until_completed(shop)
        again = shop.post("/orders", json=ORDER)

    assert [(answer.status_code, answer.json()["shown"]) for answer in placed] == [(202, "waiting for approval")] * 2
    assert approved.status_code == 202
    assert state == {"id": "o-1", "status": "completed", "shown": "approved by ann"}
    assert again.json() == state
    assert list(bank.charges.values()) == [4_200]


def test_a_second_click_has_no_second_effect(example: Any, url: str) -> None:
    with TestClient(example.make_app(url)) as shop:
        shop.post("/orders", json=ORDER)
        clicks = [shop.post("/orders/o-1/approval", json={"by": "ann"}).status_code for _ in range(3)]
        until_completed(shop)

    assert clicks[0] == 202
    assert set(clicks) <= {202, 409}


def test_what_does_not_fit_is_refused(example: Any, url: str) -> None:
    with TestClient(example.make_app(url)) as shop:
        shop.post("/orders", json=ORDER)
        taken = shop.post("/orders", json=ORDER | {"cents": 1})
        unknown, no_id = shop.get("/orders/nobody"), shop.post("/orders", json=ORDER | {"id": ""})

    assert (taken.status_code, unknown.status_code, no_id.status_code) == (409, 404, 422)
    assert "was used before with another content" in taken.json()["detail"]
