"""Forms as `multipart/form-data` sends them: names to raw values. Pure."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesHeaderParser


def read_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form; of a name that comes twice the last value. Not a form: no fields."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        return {}
    fields: dict[str, bytes] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "replace"))[1:]:
        if part.startswith(b"--"):
            break
        head, blank, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = BytesHeaderParser().parsebytes(head).get_param("name", header="content-disposition")
        if blank and isinstance(name, str):
            fields[name] = value
    return fields
