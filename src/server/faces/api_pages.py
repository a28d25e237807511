"""The interactive documents: `/docs` (try each call out) and `/redoc` (read it all), from this host alone.

The assets come with a package, the pages are written here: without inline scripts, so that a policy holds which
allows none. Both tools set style elements at run time, hence the one exception. Every address is relative, so the
pages also work behind a proxy that serves the gateway under a path.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

ASSETS = "/api-assets"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self' data:; media-src blob:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>riva-gateway: {title}</title>
<link rel="icon" href="data:,">
{style}</head>
<body>
<div id="api"></div>
<script src="api-assets/{library}"></script>
<script src="{script}"></script>
</body>
</html>
"""
_REDOC_LIBRARY = "redoc.standalone.js"
_FOREIGN_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
_DOCS = _PAGE.format(
    title="try the HTTP API",
    style='<link rel="stylesheet" href="api-assets/swagger-ui.css">\n',
    library="swagger-ui-bundle.js",
    script="docs.js",
)
_DOCS_SCRIPT = """"use strict";
// validatorUrl would show the document to another host.
window.api = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_REDOC = _PAGE.format(title="the HTTP API", style="", library=_REDOC_LIBRARY, script="redoc.js")
_REDOC_SCRIPT = """"use strict";
Redoc.init("openapi.json", { disableSearch: false, hideDownloadButton: false }, document.getElementById("api"));
"""


def add_pages(app: FastAPI) -> None:
    """`/docs` and `/redoc` with what they load."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs() -> Response:
        return _page(_DOCS)

    @routes.get("/docs.js")
    async def docs_script() -> Response:
        return _script(_DOCS_SCRIPT)

    @routes.get("/redoc")
    async def redoc() -> Response:
        return _page(_REDOC)

    @routes.get(f"{ASSETS}/{_REDOC_LIBRARY}")
    def redoc_library() -> Response:
        return _script(_own_redoc())

    @routes.get("/redoc.js")
    async def redoc_script() -> Response:
        return _script(_REDOC_SCRIPT)

    app.include_router(routes)
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]), name="api-assets")


@cache
def _own_redoc() -> str:
    """The library, but for the one picture that it would fetch from its maker's host."""
    text = files("fastapi_offline").joinpath("static", _REDOC_LIBRARY).read_text("utf-8")
    return text.replace(_FOREIGN_LOGO, "data:,")


def _page(text: str) -> Response:
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": POLICY})


def _script(text: str) -> Response:
    return Response(text, media_type="text/javascript")
