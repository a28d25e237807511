"""What `serve` says when it is up: where it listens, what is behind it, what to try next. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_ENGINES = {
    "local": "embedded: English, nothing to download (a real Riva: RIVA_ENDPOINTS=host:port)",
    "riva": "Riva / Speech NIM at {endpoint}",
    "mock": "scripted mock: it does not listen, it plays its plan",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the banner tells.

    Attributes:
        url: what to open in a browser.
        grpc: `host:port` of the Riva face, `grpcs://host:port` with TLS, or "" where it is off.
        engine: `local`, `riva` or `mock`.
        endpoint: the Riva server behind it, or "".
        self_made: where the self-made certificate lies that is in use, or "".
        open_to_others: the gateway listens to other machines too.
        asks: what clients must show, in words, or "".
        clear: which ports carry credentials without TLS, in words, or "".
        sample: an audio file to try, or "".
        version: of the gateway.
        command: how to type the command here.
    """

    url: str
    grpc: str
    engine: str
    endpoint: str
    self_made: str
    open_to_others: bool
    asks: str
    clear: str
    sample: str
    version: str
    command: str = "riva-gateway"


def describe_engine(facts: Facts) -> str:
    """The recognizer, and what it means for the words that come out."""
    return _ENGINES.get(facts.engine, facts.engine).format(endpoint=facts.endpoint)


def plain(facts: Facts) -> list[str]:
    """For a log or a pipe: one fact to a line."""
    lines = [
        f"riva-gateway {facts.version}",
        f"engine: {describe_engine(facts)}",
        f"page, HTTP and WebSocket: {facts.url}",
    ]
    if facts.grpc:
        lines.append(f"Riva gRPC: {facts.grpc}")
    if facts.self_made:
        lines.append(f"self-made certificate (to trust elsewhere, --ca-cert): {facts.self_made}")
    lines.append(f"access: with {facts.asks}" if facts.asks else "access: for everybody who can reach it")
    if facts.clear:
        lines.append(
            f"warning: credentials travel in the clear on the {facts.clear} port; use TLS, or a proxy that does"
        )
    if facts.open_to_others and not facts.asks:
        lines.append("warning: other machines can reach this gateway, and it asks nobody who they are")
    return lines


def friendly(facts: Facts) -> list[str]:
    """For a person at a terminal, in rich's markup."""
    sample = facts.sample or "YOUR-FILE.wav"
    secure = facts.url.startswith("https")
    lines = [
        f"[bold]riva-gateway[/bold] {facts.version} is up.",
        "",
        f"  [bold]Open[/bold]     [link={facts.url}]{facts.url}[/link]   and speak",
    ]
    if facts.self_made:
        lines.append(
            "           The browser warns once, because the certificate was made on this machine and no authority\n"
            "           vouches for it. Go on to the page; without TLS it would not open the microphone.\n"
            f"           Programs trust it with --ca-cert {_escape(facts.self_made)}"
        )
    lines.append(f"  [bold]Engine[/bold]   {_escape(describe_engine(facts))}")
    if facts.grpc:
        plain_text = "" if facts.grpc.startswith("grpcs://") else " (no TLS)"
        lines.append(f"  [bold]gRPC[/bold]     {facts.grpc}   any Riva client can connect here{plain_text}")
    if facts.asks:
        lines.append(f"  [bold]Access[/bold]   with {facts.asks}; a new key: {facts.command} key create NAME")
    if facts.clear:
        lines.append(
            "  [bold yellow]Note[/bold yellow]     Credentials travel in the clear on the "
            f"{facts.clear} port. Use TLS, or a proxy that does."
        )
    if facts.open_to_others and not facts.asks:
        lines.append(
            "  [bold yellow]Note[/bold yellow]     Other machines can reach this gateway, "
            "and it asks nobody who they are."
        )
    lines += [
        "",
        "  [bold]Try[/bold]      [dim]# a file through the gateway[/dim]",
        f"    {facts.command} transcribe {sample} --server {facts.url}",
    ]
    if facts.grpc:
        lines += [
            "           [dim]# the same through Riva's gRPC[/dim]",
            f"    {facts.command} transcribe {sample} --server {facts.grpc}",
        ]
    lines += [
        "           [dim]# the same without any server[/dim]",
        f"    {facts.command} transcribe {sample}",
        "",
        f"  The WebSocket is {'wss' if secure else 'ws'}://…/v1/stream. Ctrl-C ends the gateway.",
        "",
    ]
    return lines


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
