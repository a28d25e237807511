"""A gateway whose recognizer breaks on demand: `python tests/canary_gateway.py [leak]`, set up as the command is.

While a file `break` lies in its state directory the recognizer raises in the middle of a stream, with the settings'
secrets in its variables. With `leak` they are in its words too, which shows that whoever looks for them finds them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable

from asr.build import build_engine
from asr.engine import AudioInput, Engine, Features, Model, Readiness
from asr.errors import ASRError
from asr.events import Event
from asr.options import Options
from asr.settings import load_settings
from server.hardening import no_core_dumps
from server.jobs import service
from server.logs import configure_logs
from server.serve import Addresses, serve
from server.settings import ServerSettings


class BreakingEngine:
    """The engine of the settings, until the file is there."""

    def __init__(self, settings: ServerSettings, inner: Engine, *, leaks: bool) -> None:
        self.name = inner.name
        self._settings = settings
        self._inner = inner
        self._leaks = leaks

    @property
    def features(self) -> Features:
        return self._inner.features

    async def models(self) -> tuple[Model, ...]:
        return tuple(await self._inner.models())

    async def ready(self) -> Readiness:
        return await self._inner.ready()

    def refusal(self) -> ASRError | None:
        return self._inner.refusal()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        async for event in self._inner.stream(audio, options):
            if (self._settings.state_dir / "break").exists():
                fields = ServerSettings.model_fields
                secrets = [getattr(self._settings, name) for name in fields]
                words = [value.get_secret_value() for value in secrets if hasattr(value, "get_secret_value")]
                raise RuntimeError(f"a defect that knows {words if self._leaks else len(words)}")
            yield event


async def main() -> None:
    settings = load_settings(ServerSettings)
    service.OPEN_TIMEOUT_S = service.REOPEN_S = 0.5  # of a database that is not there
    no_core_dumps()
    configure_logs(settings.log_level, settings.log_format)
    engine = BreakingEngine(settings, build_engine(settings), leaks="leak" in sys.argv)

    def announce(addresses: Addresses) -> None:
        shown = [repr(settings), str(settings), settings.model_dump_json()]
        sys.stdout.write("\n".join([*shown, f"listening on {addresses.port} and {addresses.grpc_port}", ""]))
        sys.stdout.flush()

    await serve(settings, announce=announce, engine=engine)


if __name__ == "__main__":
    asyncio.run(main())
