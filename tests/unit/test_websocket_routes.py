"""Which route of the door answers at a path."""

from __future__ import annotations

import pytest

from server.admission import Admission
from server.websocket import Route, WebSocket, WebSocketDoor


async def nobody(websocket: WebSocket) -> None:
    raise AssertionError(websocket)


EXACT, BELOW = Route(nobody, "test"), Route(nobody, "test")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/exact", EXACT),
        ("/exact/", None),
        ("/exact/more", None),
        ("/below", BELOW),
        ("/below/", BELOW),
        ("/below/more", BELOW),
        ("/below/more/and//more/", BELOW),
        ("/below2", None),
        ("/other/below/", None),
        ("/", None),
        ("", None),
        ("//", None),
    ],
)
def test_a_path_and_what_is_below_it(path: str, route: Route | None) -> None:
    admission = Admission(1, random=lambda: 0.0, clock=lambda: 0.0)
    door = WebSocketDoor({"/exact": EXACT, "/below/": BELOW}, admission=admission, max_connections=1, idle_ms=1000)
    assert door.route(path) is route
