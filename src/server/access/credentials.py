"""Where clients put their credentials: headers, subprotocols, gRPC metadata. Pure; nothing is checked here.

Never in an address: those end up in logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

SUBPROTOCOL_PREFIXES = ("token.", "realtime-token.", "openai-insecure-api-key.")
"""How a browser, which cannot set headers, offers a credential: ours, a NIM's, OpenAI's."""
MAX_CREDENTIAL_CHARS = 8 * 1024


def credentials_in(
    fields: Iterable[tuple[str, str | bytes]],
    prefixes: Sequence[str] = SUBPROTOCOL_PREFIXES,
    max_chars: float = MAX_CREDENTIAL_CHARS,
) -> Iterator[str]:
    """The credentials in these headers or this metadata: bearer tokens, then subprotocols, then `x-api-key`.

    Args:
        fields: names, in any case, with their values.
        prefixes: of the subprotocols that are credentials.
        max_chars: longer ones are left out.

    >>> list(credentials_in([("X-API-Key", "k"), ("authorization", "Bearer t"), ("Sec-WebSocket-Protocol", "token.s")]))
    ['t', 's', 'k']
    """
    bearers, offered, keys = list[str](), list[str](), list[str]()
    for name, value in fields:
        folded = name.lower()
        text = value if isinstance(value, str) else value.decode("latin-1")
        if folded == "authorization":
            scheme, _, credential = text.strip().partition(" ")
            if scheme.lower() == "bearer":
                bearers.append(credential.strip())
        elif folded == "sec-websocket-protocol":
            for part in text.split(","):
                for prefix in prefixes:
                    if part.strip().startswith(prefix):
                        offered.append(part.strip().removeprefix(prefix))
        elif folded == "x-api-key":
            keys.append(text.strip())
    return (found for found in (*bearers, *offered, *keys) if 0 < len(found) <= max_chars)
