"""The secret under which our own tokens are signed: from the settings, or made once and kept."""

from __future__ import annotations

import secrets
from pathlib import Path

from asr.loading import SettingsError
from server.access.files import locked, read_bounded, write_private
from server.access.own_tokens import read_secrets
from server.settings import ServerSettings

FILE_NAME = "token-secret"
_MAX_FILE_BYTES = 64 * 1024


def token_secrets(settings: ServerSettings) -> tuple[bytes, ...]:
    """The secrets: that of the settings, else the one in the state directory, made there on the first call.

    Raises:
        SettingsError: they are unfit, or cannot be kept.
    """
    if settings.token_secret is not None:
        return _read(settings.token_secret.get_secret_value(), "TOKEN_SECRET")
    path = settings.state_dir / FILE_NAME
    try:
        return _read(_kept(path), str(path))
    except OSError as error:
        text = (
            f"The secret that signs tokens cannot be kept in {path} ({error.strerror}). Point STATE_DIR to a directory "
            "that can be written, or set TOKEN_SECRET."
        )
        raise SettingsError("STATE_DIR", text) from None


def _kept(path: Path) -> str:
    try:
        return _content(path)
    except FileNotFoundError:
        with locked(path):
            if not path.is_file():  # or another process was quicker
                write_private(path, f"{secrets.token_hex(32)}\n".encode())
        return _content(path)


def _content(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_FILE_BYTES).decode("utf-8", "replace")
    except ValueError as error:
        raise SettingsError("STATE_DIR", f"{path}: {error}.") from None


def _read(text: str, where: str) -> tuple[bytes, ...]:
    try:
        return read_secrets(text)
    except ValueError as error:
        raise SettingsError("TOKEN_SECRET", f"{where}: {error}") from None
