"""Read a blocking iterable from the event loop, one item at a time, on a thread of its own.

The thread is a daemon: a microphone or pipe that never yields again must not keep the interpreter from ending,
as the threads of the loop's own pool would.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

LET_GO_S = 1.0

_END: Any = object()


async def pull(make: Callable[[], Iterable[T]]) -> AsyncGenerator[T]:
    """The items of `make()`, which is called, iterated and closed on the thread.

    An item is asked for only when it is wanted. Whatever the iterable raises is raised here. When the generator is
    closed early, the thread closes the iterable as soon as its current step returns; that is awaited for at
    most `LET_GO_S`.
    """
    loop = asyncio.get_running_loop()
    wishes: queue.SimpleQueue[asyncio.Future[T] | None] = queue.SimpleQueue()
    over = asyncio.Event()
    thread = threading.Thread(target=_read, args=(make, wishes, loop, over), name="asr-audio", daemon=True)
    thread.start()
    try:
        while True:
            wish: asyncio.Future[T] = loop.create_future()
            wishes.put(wish)
            item = await wish
            if item is _END:
                return
            yield item
    finally:
        wishes.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_S):
                await over.wait()
            thread.join(LET_GO_S)  # it has nothing left to do but to return


def _read(
    make: Callable[[], Iterable[T]],
    wishes: queue.SimpleQueue[asyncio.Future[T] | None],
    loop: asyncio.AbstractEventLoop,
    over: asyncio.Event,
) -> None:
    iterator: Any = None
    try:
        while (wish := wishes.get()) is not None:
            try:
                if iterator is None:
                    iterator = iter(make())
                item = next(iterator, _END)
            except StopIteration as error:
                told = RuntimeError("The audio iterable raised StopIteration.")  # a future refuses the other
                told.__cause__ = error
                _hand_over(loop, wish, None, told)
                return
            except BaseException as error:
                _hand_over(loop, wish, None, error)
                return
            _hand_over(loop, wish, item, None)
    finally:
        # rule(swallowed): a generator of the caller's, closed when nobody listens to it any more
        with contextlib.suppress(Exception):
            iterator.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(over.set)


def _hand_over(
    loop: asyncio.AbstractEventLoop, wish: asyncio.Future[Any], item: Any, error: BaseException | None
) -> None:
    def settle() -> None:
        if wish.done():
            return
        if error is None:
            wish.set_result(item)
        else:
            wish.set_exception(error)

    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)
