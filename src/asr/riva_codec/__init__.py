"""Riva's messages on one side, the domain's options and events on the other; both directions, no I/O.

`requests` turns options into recognition configs and back, `reader` responses into events, `writer` events into
responses, `models` the list of models, `status` a failed call into an `ASRError`. The Riva engine uses one half
as a client, the gRPC face the other as a server.
"""

from asr.riva_codec.models import config_rows, read_models, wire_language
from asr.riva_codec.reader import ResponseReader
from asr.riva_codec.requests import FIELDS, options_from, recognize_config, streaming_config
from asr.riva_codec.results import read_recognize
from asr.riva_codec.status import Phase, error_from_status
from asr.riva_codec.writer import ResponseWriter, write_recognize

__all__ = [
    "FIELDS",
    "Phase",
    "ResponseReader",
    "ResponseWriter",
    "config_rows",
    "error_from_status",
    "options_from",
    "read_models",
    "read_recognize",
    "recognize_config",
    "streaming_config",
    "wire_language",
    "write_recognize",
]
