"""What went wrong, told to somebody at a command line: the address that was tried, and flags and keys by name.

The library's own messages speak to programs (`ca_cert=…`) or to a gateway's clients, who may not learn where the
recognizer is. The person who types the command chose it, and may. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from asr.config import EngineConfig, GatedConfig, GatewayConfig, ResilientConfig, RivaConfig
from asr.errors import Action, ASRError, Code
from server.commands.exits import SETTINGS_PARAM

_TOKEN_ADVICE = {
    "Give token=….": "Set ASR_API_KEY to a key or token of it.",
    "Send an API key or a token, as 'Authorization: Bearer …'.": "Set ASR_API_KEY to a good one.",
    "The token would travel": "ASR_API_KEY would travel",
    "or leave the token out": "or leave it unset",
}
"""What the library and gateways say of credentials, and what that is called here."""
_REFUSED = "refused the credentials"
_CREDENTIALS = "ASR_API_KEY, RIVA_API_KEY, RIVA_FUNCTION_ID and RIVA_METADATA are what it was given"


def advise(error: ASRError, config: EngineConfig, *, named: bool = True, schemed: bool = False) -> ASRError:
    """The same failure in terms of the command line.

    Args:
        error: as the library raised it.
        config: the recognizer that was asked.
        named: whether a flag or a setting names the server; otherwise the default address was tried.
        schemed: whether it is named with its scheme: then a gateway's address was not meant.
    """
    if "ca_cert=" in error.message:
        message = error.message.replace("ca_cert=…", "--ca-cert FILE").replace("insecure=True", "--insecure")
        return _setting(error, f"{_origin(config)}{message}")
    told = error.message
    for theirs, ours in _TOKEN_ADVICE.items():
        told = told.replace(theirs, ours)
    if told != error.message:
        return _setting(error, f"{_origin(config)}{told}")
    if isinstance(config, GatewayConfig) and error.code in (Code.UNAVAILABLE, Code.TIMEOUT):
        return _again(error, f"{_origin(config)}{error.message}")
    config = config.member if isinstance(config, GatedConfig) else config
    members = config.members if isinstance(config, ResilientConfig) else (config,)
    endpoints = [member for member in members if isinstance(member, RivaConfig)]
    if endpoints and (error.code is Code.UNAVAILABLE or _REFUSED in error.message):
        return _riva(error, endpoints, named=named, schemed=schemed)
    return error


def without_name(message: str, name: str) -> str:
    """A file's message without the file's name, for a line that begins with it already."""
    path = Path(name)
    message = message.removeprefix("stdin: " if name == "-" else f"{path.name}: ")
    quoted = repr(str(path))
    if message == f"There is no file {quoted}.":
        return "There is no such file."
    return f"This {message.removeprefix(quoted).lstrip()}" if message.startswith(f"{quoted} ") else message


def _riva(error: ASRError, endpoints: Sequence[RivaConfig], *, named: bool, schemed: bool) -> ASRError:
    lower = error.message.lower()
    places = " or ".join(riva.endpoint for riva in endpoints)
    if "cannot be reached" in lower:
        where = f"The recognizer cannot be reached at {places}{' with TLS' if endpoints[0].ssl else ''}."
        if not named:
            why = f"RIVA_ENDPOINTS is not set, so {places} was tried"
            return _again(error, f"{where} {why}. Set it, or give --server host:port.")
        if len(endpoints) > 1:
            return _again(error, f"{where} Is any of them running?")
        hint = "" if schemed else f" If that is a gateway's HTTPS port, write https://{places}."
        return _again(error, f"{where} Is it running?{hint}")
    if _REFUSED in error.message:
        return _setting(error, f"The recognizer at {places} refused the credentials. {_CREDENTIALS}; correct them.")
    if error.retryable or error.action is not Action.NONE:
        return error
    if "function" in lower:
        return _setting(error, f"{places}: the cloud function is not there any more. Correct RIVA_FUNCTION_ID.")
    if "no riva" in lower:
        return _again(error, f"What answers at {places} is no Riva speech recognition. Correct the address.")
    return error


def _origin(config: EngineConfig) -> str:
    """The gateway's address in front of a message, without what may be secret in a URL."""
    if not isinstance(config, GatewayConfig):
        return ""
    url = urlsplit(config.url)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}: "


def _setting(error: ASRError, message: str) -> ASRError:
    return ASRError(error.code, message, retryable=False, action=Action.NONE, param=SETTINGS_PARAM)


def _again(error: ASRError, message: str) -> ASRError:
    return ASRError(
        error.code,
        message,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
        action=error.action,
        param=error.param,
    )
