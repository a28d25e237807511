"""Messages on their way to one client: what may be left out, what is numbered, what is kept to be sent again.

Pure. A message *waits* until it is taken to be sent. While it waits, a newer one of its topic makes it needless if
it is lossy: a client that reads slowly loses partials, never finals. In a numbered dialect a message gets its
`seq` when it is taken, so the numbers have no gaps, and it is *kept* until the client says that it has seen it, so
that a client whose connection broke can be given everything that it missed. Both stores are bounded.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from server.conversation import Send

MAX_WAITING = 5_000
MAX_WAITING_CHARS = 1024 * 1024
MAX_KEPT = 4_096
MAX_KEPT_CHARS = 1024 * 1024
"""Busy speech with words in every partial comes to 256 Ki in 15 s, and a client may be away longer than that."""
MAX_KEPT_CHARS_IN_ALL = 256 * 1024 * 1024
SHARE_KEPT_CHARS = 64 * 1024


class KeptMemory:
    """What the outboxes of a server keep, together.

    Attributes:
        max_chars: the bound. Over it no outbox keeps more than its share, which is then added to it at most.
        share_chars: what every outbox may keep whatever the others keep.
        used_chars: what is kept now.
    """

    def __init__(self, max_chars: int = MAX_KEPT_CHARS_IN_ALL, share_chars: int = SHARE_KEPT_CHARS) -> None:
        self.max_chars = max_chars
        self.share_chars = share_chars
        self.used_chars = 0

    def allows(self, kept_chars: int) -> bool:
        """Whether an outbox may keep so much."""
        return self.used_chars <= self.max_chars or kept_chars <= self.share_chars


class Outbox:
    """The messages of one conversation.

    Args:
        numbered: messages are JSON objects that get a `seq`.
        max_waiting, max_waiting_chars: beyond either the outbox is `full`: its client reads too slowly.
        max_kept, max_kept_chars: beyond either the oldest messages that were sent are forgotten.
        memory: shared with other outboxes, and bounded too; by default it is this one's alone.

    Attributes:
        left_out: lossy messages that were never sent, because a newer one came before their turn.
        put_number: of the message that was put last; 0 before the first.
        taken_number: of the newest message that was taken, among those that were put.
    """

    def __init__(
        self,
        *,
        numbered: bool,
        max_waiting: int = MAX_WAITING,
        max_waiting_chars: int = MAX_WAITING_CHARS,
        max_kept: int = MAX_KEPT,
        max_kept_chars: int = MAX_KEPT_CHARS,
        memory: KeptMemory | None = None,
    ) -> None:
        self._numbered = numbered
        self._max_waiting = max_waiting
        self._max_waiting_chars = max_waiting_chars
        self._max_kept = max_kept
        self._max_kept_chars = max_kept_chars
        self._waiting: dict[int, Send] = {}
        self._waiting_chars = 0
        self.put_number = 0
        self.taken_number = 0
        self._lossy: dict[str, int] = {}
        self._kept: deque[str] = deque()  # the last one has the number `_given`
        self._kept_chars = 0
        self._memory = memory if memory is not None else KeptMemory()
        self._released = False
        self._given = 0
        self._again: deque[str] = deque()  # kept ones that a client which came back has yet to get
        self.left_out = 0

    def __len__(self) -> int:
        """How many messages are to be sent."""
        return len(self._again) + len(self._waiting)

    @property
    def last_seq(self) -> int:
        """The number of the last message that was sent to the client, on its present connection."""
        return self._given - len(self._again)

    @property
    def full(self) -> bool:
        """Whether more waits than a client that reads would let come together."""
        return self._over(1)

    @property
    def overflowing(self) -> bool:
        """Whether twice as much waits: nobody will ever read it."""
        return self._over(2)

    def put(self, send: Send) -> None:
        """A message to be sent. It takes the place of a lossy one of its topic that still waits."""
        if send.topic:
            stale = self._lossy.pop(send.topic, None)
            if stale is not None:
                self._waiting_chars -= len(self._waiting.pop(stale).text)
                self.left_out += 1
        self.put_number += 1
        self._waiting[self.put_number] = send
        self._waiting_chars += len(send.text)
        if send.lossy and send.topic:
            self._lossy[send.topic] = self.put_number

    def take(self, *, keep: bool) -> str | None:
        """The next text to send, or None. `keep` it, in case the client has to be given it again."""
        if self._again:
            return self._again.popleft()
        if not self._waiting:
            return None
        key = next(iter(self._waiting))
        send = self._waiting.pop(key)
        self.taken_number = key
        self._waiting_chars -= len(send.text)
        if self._lossy.get(send.topic) == key:
            del self._lossy[send.topic]
        if not self._numbered:
            return send.text
        self._given += 1
        text = f'{send.text[:-1]},"seq":{self._given}}}'
        if keep and not self._released:
            self._kept.append(text)
            self._count(len(text))
            while self._keeps_too_much():
                self._forget()
        return text

    def seen(self, seq: int) -> None:
        """The client has seen every message up to `seq`: they need not be kept."""
        for _ in range(min(seq, self.last_seq) - (self._given - len(self._kept))):
            self._forget()

    def has_after(self, seq: int) -> bool:
        """Whether a client that has seen the messages up to `seq` can be given all that came after."""
        return self._given - len(self._kept) <= seq <= self._given

    def rewind(self, seq: int) -> None:
        """The client comes back, and has seen the messages up to `seq`: those after it are sent again first."""
        self._again.clear()
        self.seen(seq)
        self._again.extend(islice(self._kept, seq - (self._given - len(self._kept)), None))

    def release(self) -> None:
        """Nobody will come back: from now on nothing is kept. What is on its way to be sent again still is."""
        self._released = True
        self._kept.clear()
        self._count(-self._kept_chars)

    def _keeps_too_much(self) -> bool:
        chars = self._kept_chars
        if len(self._kept) > self._max_kept or chars > self._max_kept_chars:
            return True
        return not self._memory.allows(chars)

    def _over(self, times: int) -> bool:
        return len(self._waiting) > self._max_waiting * times or self._waiting_chars > self._max_waiting_chars * times

    def _forget(self) -> None:
        self._count(-len(self._kept.popleft()))

    def _count(self, chars: int) -> None:
        self._kept_chars += chars
        self._memory.used_chars += chars
