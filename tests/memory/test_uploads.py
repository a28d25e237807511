"""Forms and bodies, cut anywhere, taken into the spool; what goes wrong leaves nothing behind."""

import asyncio
import base64
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from server.forms import plain_name
from server.spool import Spool, SpoolFile
from server.uploads import read_body, read_form, read_json

AUDIO = bytes(range(256)) * 40
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nen-US\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: Audio/WAV; x=1\r\n\r\n'
    + AUDIO
    + b'\r\n--b\r\nContent-Disposition: form-data; name="g[]"\r\n\r\nword\r\n'
    b'--b\r\nContent-Disposition: form-data; name="g[]"\r\n\r\nsegment\r\n--b--\r\n'
)


def request_of(pieces: list[bytes], content_type: str, *, length: int | None = None, breaks: bool = False) -> Request:
    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces) or breaks}
        return {"type": "http.disconnect"}

    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}, receive)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    made = Spool(tmp_path / "spool", 1 << 20)
    yield made
    assert made.used_bytes == 0
    assert not made.folder.exists() or list(made.folder.iterdir()) == []


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 1 << 20])
async def test_a_form_cut_anywhere(spool: Spool, size: int):
    request = request_of(cut(FORM, size), "multipart/form-data; boundary=b")
    async with await read_form(request, spool, max_bytes=len(AUDIO)) as form:
        upload = form.file()
        assert upload.path.read_bytes() == AUDIO
        assert (upload.filename, upload.content_type, upload.size_bytes) == ("a.wav", "audio/wav", len(AUDIO))
        assert form.field("language") == "en-US"
        assert form.fields("g", "g[]") == ["word", "segment"]
        assert form.field("absent", "x") == "x"


async def test_what_is_announced_as_too_large_is_not_read(spool: Spool):
    request = request_of([], "multipart/form-data; boundary=b", length=1 << 30)
    with pytest.raises(ASRError) as caught:
        await read_form(request, spool, max_bytes=1000)
    assert caught.value.code is Code.TOO_LARGE


async def test_a_file_that_grows_too_large_is_refused(spool: Spool):
    request = request_of(cut(FORM, 512), "multipart/form-data; boundary=b")
    with pytest.raises(ASRError) as caught:
        await read_form(request, spool, max_bytes=len(AUDIO) - 1)
    assert (caught.value.code, caught.value.param) == (Code.TOO_LARGE, "file")


async def test_a_form_that_ends_early(spool: Spool):
    request = request_of(cut(FORM[:-12], 512), "multipart/form-data; boundary=b")
    with pytest.raises(ASRError, match="closing boundary"):
        await read_form(request, spool, max_bytes=1 << 20)


async def test_a_client_that_goes_away(spool: Spool):
    request = request_of(cut(FORM[:5000], 512), "multipart/form-data; boundary=b", breaks=True)
    with pytest.raises(Exception, match=r"^$"):
        await read_form(request, spool, max_bytes=1 << 20)


async def test_a_spool_that_is_full(tmp_path: Path):
    small = Spool(tmp_path, 5000)
    with pytest.raises(ASRError) as caught:
        await read_form(request_of(cut(FORM, 512), "multipart/form-data; boundary=b"), small, max_bytes=1 << 20)
    assert caught.value.code is Code.STORAGE_FULL
    assert small.used_bytes == 0


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "text/plain", "", "multipart/form-data; boundary=", "application/json"]
)
async def test_what_is_no_form(spool: Spool, content_type: str):
    with pytest.raises(ASRError) as caught:
        await read_form(request_of([b"x"], content_type), spool, max_bytes=100)
    assert caught.value.code is Code.BAD_REQUEST


async def test_a_missing_and_an_empty_file(spool: Spool):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n--b--\r\n'
    async with await read_form(request_of([body], "multipart/form-data; boundary=b"), spool, max_bytes=100) as form:
        with pytest.raises(ASRError, match="empty"):
            form.file()
        with pytest.raises(ASRError, match=r"files: file\)"):
            form.file("audio")


async def test_fields_are_bounded(spool: Spool):
    one = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    with pytest.raises(ASRError, match="more than 200 fields"):
        await read_form(request_of([one * 300], "multipart/form-data; boundary=b"), spool, max_bytes=1 << 20)
    long = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"1" * 300_000 + b"\r\n--b--\r\n"
    with pytest.raises(ASRError, match="'x' is too long"):
        await read_form(request_of(cut(long, 9999), "multipart/form-data; boundary=b"), spool, max_bytes=1 << 20)


async def test_the_bound_that_is_told_is_the_files(spool: Spool):
    request = request_of([], "multipart/form-data; boundary=b", length=1 << 30)
    with pytest.raises(ASRError, match=r"larger than the 2 MiB"):
        await read_form(request, spool, max_bytes=2 << 20)


async def test_a_boundary_that_no_form_has(spool: Spool):
    with pytest.raises(ASRError, match="boundary") as caught:
        await read_form(request_of([b"x"], f"multipart/form-data; boundary={'b' * 300}"), spool, max_bytes=100)
    assert caught.value.code is Code.BAD_REQUEST


async def test_an_urlencoded_form_of_many_fields(spool: Spool):
    with pytest.raises(ASRError, match="more than 200 fields"):
        await read_form(request_of([b"a&" * 400_000], "application/x-www-form-urlencoded"), spool, max_bytes=1 << 20)


async def test_an_urlencoded_form(spool: Spool):
    form = await read_form(
        request_of([b"language=en&x=%20a%0D%0A"], "application/x-www-form-urlencoded"), spool, max_bytes=10
    )
    assert (form.field("language"), form.field("x")) == ("en", "a")


async def test_a_body_is_a_file(spool: Spool):
    async with await read_body(request_of(cut(AUDIO, 1000), "Audio/Wav; a=b"), spool, max_bytes=1 << 20) as upload:
        assert upload.path.read_bytes() == AUDIO
        assert upload.content_type == "audio/wav"
    with pytest.raises(ASRError) as caught:
        await read_body(request_of([b""], "audio/wav"), spool, max_bytes=10)
    assert caught.value.code is Code.BAD_AUDIO
    with pytest.raises(ASRError) as caught:
        await read_body(request_of(cut(AUDIO, 1000), "audio/wav"), spool, max_bytes=2500)
    assert caught.value.code is Code.TOO_LARGE


def json_body(audio: bytes, **members: object) -> bytes:
    fields = "".join(f', "{name}": "{value}"' for name, value in members.items())
    return b'{"audio": "' + base64.b64encode(audio) + b'"' + fields.encode() + b"}"


async def test_json_with_a_file(spool: Spool):
    sent = json_body(AUDIO * 100, filename="../a.wav", language="en")
    upload, members = await read_json(
        request_of(cut(sent, 70_000), "application/json"), spool, max_bytes=1 << 21, max_body_bytes=1 << 22, example=""
    )
    async with upload:
        assert upload.path.read_bytes() == AUDIO * 100
        assert (upload.filename, upload.size_bytes) == ("a.wav", len(AUDIO) * 100)
        assert members["language"] == "en"


@pytest.mark.parametrize(("max_bytes", "max_body_bytes"), [(1000, 1 << 20), (1 << 20, 1000)])
async def test_json_that_is_too_large(spool: Spool, max_bytes: int, max_body_bytes: int):
    with pytest.raises(ASRError, match="larger than the 1000 bytes") as caught:
        await read_json(
            request_of(cut(json_body(AUDIO), 500), "application/json"),
            spool,
            max_bytes=max_bytes,
            max_body_bytes=max_body_bytes,
            example="",
        )
    assert caught.value.code is Code.TOO_LARGE


class SlowSpool(Spool):
    """Its disk takes nothing until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1 << 20)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def create(self) -> SpoolFile:
        self.reached.set()
        assert self.go_on.wait(10)
        return super().create()


READS: list[Callable[[Spool], Awaitable[object]]] = [
    lambda spool: read_form(request_of([FORM], "multipart/form-data; boundary=b"), spool, max_bytes=1 << 20),
    lambda spool: read_body(request_of([AUDIO], "audio/wav"), spool, max_bytes=1 << 20),
    lambda spool: read_json(
        request_of([json_body(AUDIO)], "application/json"), spool, max_bytes=1 << 20, max_body_bytes=1 << 20, example=""
    ),
]


@pytest.mark.parametrize("read", READS, ids=["form", "body", "json"])
async def test_who_is_cancelled_while_the_disk_is_slow_leaves_nothing(
    tmp_path: Path, read: Callable[[Spool], Awaitable[object]]
):
    slow = SlowSpool(tmp_path / "spool")
    reading = asyncio.ensure_future(read(slow))
    await asyncio.to_thread(slow.reached.wait, 10)
    reading.cancel()
    await asyncio.sleep(0)
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert list(slow.folder.iterdir()) == []
    assert slow.used_bytes == 0


async def test_a_file_that_is_kept(tmp_path: Path):
    spool = Spool(tmp_path, 1 << 20)
    async with await read_body(request_of([b"abc"], "audio/wav"), spool, max_bytes=10) as upload:
        upload.keep()
    assert upload.path.read_bytes() == b"abc"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_body_breaks_the_reader(noise: bytes, size: int):
    async def read() -> None:
        spool = Spool(Path("/dev/shm") / "riva-gateway-test-spool", 1 << 20)
        with contextlib.suppress(ASRError):  # any other exception is a defect
            body = FORM[:120] + noise + FORM[-60:]
            form = await read_form(
                request_of(cut(body, size), "multipart/form-data; boundary=b"), spool, max_bytes=1 << 16
            )
            await form.close()
        assert spool.used_bytes == 0

    asyncio.run(read())


@pytest.mark.parametrize(
    ("given_name", "plain"),
    [("a/b.wav", "b.wav"), ("..", ".."), ("\x00a\n.wav", "a.wav"), ("", ""), ("x" * 999, "x" * 255)],
)
def test_names_are_plain(given_name: str, plain: str):
    assert plain_name(given_name) == plain
