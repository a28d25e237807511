"""Rows 44 to 51 of the fault catalogue: bytes, messages and sounds that nobody should send.

None may reach a recognizer that need not, none may end in an error of our own, and nobody beside may notice.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import orjson

from chaos.numbered import frame
from chaos.raw_clients import BINARY, CLOSE, CONTINUATION, LOST, PING, TEXT, Raw, frame_of
from chaos.scene import STRANGER, Row, Scene, all_of, now

PATIENCE_S = 10.0
START = frame_of(TEXT, b'{"type":"start"}')
OWN_FAULT = (1011, LOST)
"""Close codes that would be ours to explain."""

PROTOCOL, UTF8 = {1002}, {1007}

MALFORMED: tuple[tuple[str, bytes, set[int]], ...] = (
    *((f"reserved bit {bit}", frame_of(TEXT, b"{}", reserved=bit), PROTOCOL) for bit in (1, 2, 4)),
    *((f"opcode {code}", frame_of(code, b"x"), PROTOCOL) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("text unmasked", frame_of(TEXT, b'{"type":"keepalive"}', masked=False), PROTOCOL),
    ("audio unmasked", frame_of(BINARY, bytes(640), masked=False), PROTOCOL),
    ("ping unmasked", frame_of(PING, masked=False), PROTOCOL),
    ("text that is no UTF-8", frame_of(TEXT, b'{"type":"\xff\xfe"}'), UTF8),
    ("a surrogate in UTF-8", frame_of(TEXT, b'{"type":"\xed\xa0\x80"}'), UTF8),
    ("half a character", frame_of(TEXT, b'{"type":"\xc3'), UTF8),
    (
        "no UTF-8 over fragments",
        frame_of(TEXT, b'{"ty', fin=False) + frame_of(CONTINUATION, b"\xc3", fin=False) + frame_of(CONTINUATION, b"("),
        UTF8,
    ),
    ("ping of 126 bytes", frame_of(PING, bytes(126)), PROTOCOL),
    ("ping in fragments", frame_of(PING, b"x", fin=False), PROTOCOL),
    ("continuation of nothing", frame_of(CONTINUATION, b"x"), PROTOCOL),
    ("text within a text", frame_of(TEXT, b"{", fin=False) + frame_of(TEXT, b"}"), PROTOCOL),
    ("close of one byte", frame_of(CLOSE, b"\x03"), PROTOCOL),
    ("close with 1005", frame_of(CLOSE, struct.pack("!H", 1005)), PROTOCOL),
    ("close with 999", frame_of(CLOSE, struct.pack("!H", 999)), PROTOCOL),
    ("close with no UTF-8", frame_of(CLOSE, struct.pack("!H", 1000) + b"\xff"), PROTOCOL | UTF8),
    ("a length of 2⁶³", bytes([0x82, 0xFF]) + struct.pack("!Q", 2**63) + bytes(4), PROTOCOL | {1009}),
    ("a length of 2⁶²", bytes([0x82, 0xFF]) + struct.pack("!Q", 2**62) + bytes(4), {1009}),
)


async def malformed(scene: Scene) -> None:
    """Each kind of broken frame, before and after `start`, in one piece and byte by byte."""
    crowd = scene.crowd(8, 50)

    async def one(name: str, bad: bytes, allowed: set[int], ahead: bytes, bytewise: bool) -> None:
        async with Raw(scene.gateway.port) as client:
            await client.send(ahead)
            for at in range(0, len(bad), 1 if bytewise else len(bad)):
                await client.send(bad[at : at + (1 if bytewise else len(bad))])
                if bytewise:
                    await asyncio.sleep(0)
            begun = now()
            code = await client.read(PATIENCE_S)
            scene.answered(now() - begun)
            scene.check(code in allowed, f"{name} ({ahead[:1]!r}, {bytewise=}): closed with {code}, not {allowed}")

    for name, bad, allowed in MALFORMED:
        await all_of(*(one(name, bad, allowed, ahead, bytewise) for ahead in (b"", START) for bytewise in (0, 1)))
    scene.note(f"{len(MALFORMED) * 4} broken streams of frames")
    await scene.come_out_whole(crowd)


async def fragments(scene: Scene) -> None:
    """Audio in fragments of a byte; endless fragments of nothing; messages beyond the limit."""
    crowd = scene.crowd(8, 60)

    async def tiny() -> None:
        number = STRANGER * 1_000
        audio = frame(number)
        pieces = [frame_of(BINARY, audio[:1], fin=False)]
        pieces += [frame_of(CONTINUATION, audio[n : n + 1], fin=False) for n in range(1, len(audio))]
        async with Raw(scene.gateway.port) as client:
            await client.send(START + b"".join(pieces) + frame_of(CONTINUATION) + frame_of(TEXT, b'{"type":"stop"}'))
            code = await client.read(PATIENCE_S)
            words = " ".join(m["text"] for m in client.of("final"))
            scene.check((code, words) == (1000, f"f{number:05d}"), f"fragments of a byte: {code}, heard {words!r}")

    async def nothing() -> None:
        async with Raw(scene.gateway.port) as client:
            await client.send(START + frame_of(BINARY, b"", fin=False))
            for _ in range(20):
                await client.send(frame_of(CONTINUATION, b"", fin=False) * 5_000)
                await asyncio.sleep(0.01)
            await client.send(frame_of(CONTINUATION) + frame_of(TEXT, b'{"type":"stop"}'))
            scene.check(await client.read(PATIENCE_S) == 1000, "100,000 empty fragments were not survived")

    async def too_large(pieces: list[bytes]) -> None:
        async with Raw(scene.gateway.port) as client:
            await client.send(START)
            begun = now()
            sending = asyncio.create_task(client.send(b"".join(pieces)))
            code = await client.read(PATIENCE_S)
            scene.answered(now() - begun)
            await asyncio.wait([sending], timeout=1)
            sending.cancel()
            told = client.of("error")
            scene.check(code == 1009, f"too large: closed with {code}")
            scene.check(bool(told) and told[-1]["code"] == "too_large", f"too large: told {told}")

    half = bytes(600_000)
    await all_of(
        tiny(), nothing(),
        too_large([frame_of(BINARY, bytes(8 * 2**20))]),
        too_large([frame_of(TEXT, b'{"type":"' + b"x" * 2 * 2**20 + b'"}')]),
        too_large([frame_of(BINARY, half, fin=False), frame_of(CONTINUATION, half)]),
        too_large([frame_of(BINARY, b"", length=2**40)]),
    )  # fmt: skip
    await scene.come_out_whole(crowd)
    scene.memory_below(4, 6)


async def bomb(scene: Scene) -> None:
    """Twelve offer compression and send 200 MiB of zeros in 0.2 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush(zlib.Z_SYNC_FLUSH)

    async def one() -> None:
        offer = "permessage-deflate; client_max_window_bits"
        async with Raw(scene.gateway.port, extensions=offer) as client:
            scene.check(client.status == 101, f"the handshake was answered with {client.status}")
            scene.check("permessage-deflate" not in client.head.lower(), "compression was accepted")
            await client.send(START + frame_of(BINARY, packed[:-4], reserved=4))
            code = await client.read(PATIENCE_S)
            scene.check(code == 1002, f"a compressed message was met with {code}")

    await all_of(*(one() for _ in range(12)))
    scene.memory_below(4, 12)


def _start(**audio: Any) -> bytes:
    return orjson.dumps({"type": "start", "audio": audio})


WRONG_RATES = (
    *(_start(sample_rate_hz=rate) for rate in (0, -1, 1, 10**6, 10**9, 2**53)),
    *(_start(sample_rate_hz=rate) for rate in (16_000.5, "16000", True, [16_000], {})),
    *(
        b'{"type":"start","audio":{"sample_rate_hz":%s}}' % raw
        for raw in (b"NaN", b"1e999", b"-Infinity", b"9" * 5_000, b"1e-400")
    ),
    *(_start(channels=count) for count in (0, -1, 1_000, "1")),
    *(_start(encoding=name) for name in ("", "mp9", "pcm_s24le", "../../etc/passwd", 7)),
)


async def wrong_rates(scene: Scene) -> None:
    """Whatever is wrong with a declared format is said by name, and no recognizer hears of it."""
    opened = (await scene.upstream.state())["opened"]
    for text in WRONG_RATES:
        async with Raw(scene.gateway.port) as client:
            await client.send(
                frame_of(TEXT, text) + frame_of(BINARY, bytes(3_200)) + frame_of(TEXT, b'{"type":"stop"}')
            )
            code = await client.read(PATIENCE_S)
            told = client.of("error")
            shown = text[:70].decode()
            scene.check(code in (4400, 4415), f"{shown}: closed with {code}")
            scene.check(bool(told) and told[-1]["code"] in ("bad_request", "unsupported"), f"{shown}: told {told}")
            named = bool(told) and ("audio" in (told[-1]["param"] or "") or "JSON" in told[-1]["message"])
            scene.check(named, f"{shown}: the field is not named: {told}")
    now_opened = (await scene.upstream.state())["opened"]
    scene.check(now_opened == opened, f"{now_opened - opened} streams reached the recognizer")
    scene.note(f"{len(WRONG_RATES)} declarations")


async def odd_bytes(scene: Scene) -> None:
    """Samples split over messages anywhere; a lone byte at the end."""
    crowd = scene.crowd(20, 40, min_chunk=1, max_chunk=4_001, pace=2.0)

    async def lone() -> None:
        number = STRANGER * 1_000
        async with Raw(scene.gateway.port) as client:
            await client.send(START + frame_of(BINARY, frame(number)) + frame_of(BINARY, b"\x01"))
            await client.send(frame_of(TEXT, b'{"type":"stop"}'))
            code = await client.read(PATIENCE_S)
            words = " ".join(m["text"] for m in client.of("final"))
            scene.check((code, words) == (1000, f"f{number:05d}"), f"a lone byte: {code}, heard {words!r}")
            scene.check(bool(client.of("warning")), "a lone byte at the end was not reported")

    await lone()
    await scene.come_out_whole(crowd)


def _wav(audio: bytes, *, riff: int = -1, data: int = -1, fmt: bytes | None = None, before: bytes = b"") -> bytes:
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16) if fmt is None else fmt
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data"
    body += struct.pack("<I", len(audio) if data < 0 else data) + audio
    return b"RIFF" + struct.pack("<I", len(body) if riff < 0 else riff) + body


async def lying_headers(scene: Scene) -> None:
    """Headers whose sizes lie are read past; 400 changed at random get words or a refusal, never our fault."""
    numbers = range(STRANGER * 1_000, STRANGER * 1_000 + 5)
    audio = b"".join(map(frame, numbers))
    words = " ".join(f"f{n:05d}" for n in numbers)
    good = {
        "true": _wav(audio),
        "size 0": _wav(audio, riff=0, data=0),
        "size 2³²-1": _wav(audio, riff=2**32 - 1, data=2**32 - 1),
        "a list before": _wav(audio, before=b"LIST" + struct.pack("<I", 4) + b"INFO"),
    }
    chance = random.Random(scene.outcome.seed)

    async def hear(sound: bytes) -> tuple[int, str]:
        async with Raw(scene.gateway.port) as client:
            await client.send(frame_of(TEXT, _start(encoding="wav")))
            for at in range(0, len(sound), 5_000):
                await client.send(frame_of(BINARY, sound[at : at + 5_000]))
            await client.send(frame_of(TEXT, b'{"type":"stop"}'))
            begun = now()
            code = await client.read(PATIENCE_S)
            scene.answered(now() - begun)
            return code, " ".join(m["text"] for m in client.of("final"))

    for name, sound in good.items():
        code, heard = await hear(sound)
        scene.check((code, heard) == (1000, words), f"{name}: {code}, heard {heard!r}")
    codes: dict[int, int] = {}
    for _ in range(400):
        changed = bytearray(good["true"])
        for _ in range(chance.randint(1, 6)):
            changed[chance.randrange(48)] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        sound = bytes(changed[: chance.choice((len(changed), chance.randrange(60)))])
        code, _ = await hear(sound)
        codes[code] = codes.get(code, 0) + 1
        scene.check(code in (1000, 4400, 4415), f"{sound[:48].hex()}: closed with {code}")
    scene.note(f"codes of 400 changed headers: {codes}")


WORDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda chance: frame_of(BINARY, bytes(chance.randrange(0, 4_000))),
    lambda chance: frame_of(TEXT, b'{"type":"start"}'),
    lambda chance: frame_of(TEXT, b'{"type":"stop"}') if chance.random() < 0.1 else frame_of(PING, b"?"),
    lambda chance: frame_of(TEXT, b'{"type":"cancel"}') if chance.random() < 0.1 else frame_of(0xA, b"!"),
    lambda chance: frame_of(TEXT, b'{"type":"finalize","id":"%d"}' % chance.randrange(9)),
    lambda chance: frame_of(TEXT, b'{"type":"mark","id":"%d"}' % chance.randrange(9)),
    lambda chance: frame_of(TEXT, b'{"type":"configure","id":"c","language":"xx"}'),
    lambda chance: frame_of(TEXT, b'{"type":"keepalive"}'),
    lambda chance: frame_of(TEXT, b'{"type":"ack","seq":%d}' % chance.choice((-1, 0, 1, 2**40))),
    lambda chance: frame_of(TEXT, b'{"type":"resume","session_id":"x","resume_token":"y","last_seq":0,"sent_bytes":0}'),
    lambda chance: frame_of(
        TEXT, chance.choice((b"{}", b"[]", b"null", b"", b'"', b'{"type":7}', b'{"type":"nobody"}'))
    ),
)


async def wrong_order(scene: Scene) -> None:
    """Every client says forty things in an order that chance chose; some say one thing four thousand times."""
    crowd = scene.crowd(10, 70)
    chance = random.Random(scene.outcome.seed)
    ends: dict[int, int] = {}

    async def ramble(said: list[bytes]) -> None:
        async with Raw(scene.gateway.port) as client:
            reading = asyncio.create_task(client.read(30))
            for one in said:
                await client.send(one)
                if client.close_code:
                    break
            await client.send(frame_of(TEXT, b'{"type":"stop"}') + frame_of(CLOSE, struct.pack("!H", 1000)))
            begun = now()
            code = await reading
            scene.answered(now() - begun)
            ends[code] = ends.get(code, 0) + 1
            numbers = [m["seq"] for _, m in client.messages if "seq" in m]
            scene.check(numbers == list(range(1, len(numbers) + 1)), f"numbered {numbers[:20]}")
            scene.check(code not in OWN_FAULT, f"closed with {code} after {said[:6]}")

    batch = [[START] * (chance.random() < 0.8) + [chance.choice(WORDS)(chance) for _ in range(40)] for _ in range(200)]
    for at in range(0, len(batch), 20):
        await all_of(*(ramble(said) for said in batch[at : at + 20]))
    floods = [[START] + [word(chance)] * 4_000 for word in (*WORDS[4:9], lambda _: frame_of(PING, bytes(125)))]
    await all_of(*(ramble(said) for said in floods))
    scene.note(f"{len(batch)} conversations, {len(floods)} floods; codes {dict(sorted(ends.items()))}")
    await scene.come_out_whole(crowd)
    scene.memory_below(4, len(floods))


DEEP = (
    ("arrays 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
    ("objects 50,000 deep", b'{"type":' * 50_000 + b"1" + b"}" * 50_000),
    ("deep within start", b'{"type":"start","metadata":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}"),
    ("a number of 5,000 digits", b'{"type":"ack","seq":' + b"9" * 5_000 + b"}"),
    ("lone surrogates", b'{"type":"start","language":"\\ud800"}'),
    ("lone surrogates as a type", b'{"type":"\\udfff"}'),
    ("a null byte", b'{"type":"start","language":"en\\u0000US"}'),
    ("the same key twice", b'{"type":"start","type":"stop"}'),
    ("a text of 1 MB", b'{"type":"start","language":"' + b"x" * 1_000_000 + b'"}'),
    ("60,000 keys", b'{"type":"start",' + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}"),
    ("NaN", b'{"type":"finalize","id":NaN}'),
    ("1e999", b'{"type":"start","resume_window_ms":1e999}'),
)


async def deep(scene: Scene) -> None:
    """What breaks parsers is refused in words within a second, as the first message and as a later one."""
    crowd = scene.crowd(8, 40)

    async def one(name: str, text: bytes, ahead: bytes) -> None:
        async with Raw(scene.gateway.port) as client:
            await client.send(ahead + frame_of(TEXT, text))
            begun = now()
            # What is benign is answered and survived: then the client ends it.
            await client.send(frame_of(TEXT, b'{"type":"stop"}'))
            code = await client.read(PATIENCE_S)
            scene.answered(now() - begun)
            told = [m["code"] for m in client.of("error")]
            allowed = (1000, 1007, 4400, 4404, 4415)
            scene.check(code in allowed, f"{name} ({ahead[:1]!r}): closed with {code}, told {told}")

    for name, text in DEEP:
        await all_of(one(name, text, b""), one(name, text, START))
    await scene.come_out_whole(crowd)
    scene.memory_below(4, len(DEEP) * 2)


INPUT_ROWS = (
    Row("44", "Malformed frames: reserved bits, opcodes, no mask, no UTF-8, control over 125", "raw client",
        malformed, streams=len(MALFORMED) * 4, settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over",
        answer_ms=1_000),
    Row("45", "Fragments of a byte and of nothing; messages beyond the limit", "raw client", fragments, streams=6,
        settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over", answer_ms=2_000),
    Row("46", "Compression bomb, 200 MiB in 0.2 MB", "raw client", bomb, streams=12,
        settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over"),
    Row("47", "Wrong rates, channels and encodings", "raw client", wrong_rates, streams=len(WRONG_RATES)),
    Row("48", "Odd bytes, samples split over messages", "chunks of 1 to 4,001 bytes", odd_bytes, streams=21),
    Row("49", "WAV headers that lie", "sizes of 0 and 2³²-1; 400 headers changed at random", lying_headers,
        streams=404, answer_ms=1_000),
    Row("50", "Wrong order, and floods of control messages", "200 random conversations, 6 floods of 4,000",
        wrong_order, streams=206, settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over"),
    Row("51", "Deep JSON, huge numbers, surrogates, a megabyte", "raw client, first and later", deep,
        streams=len(DEEP) * 2, settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over",
        answer_ms=1_000),
)  # fmt: skip
