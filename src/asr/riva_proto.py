"""NVIDIA's generated Riva messages and stubs: the one room that imports them.

They come from the `nvidia-riva-client` package and nowhere else, since a second copy of the same protos
collides with it in protobuf's registry. The generated classes carry no types, so `Message` is loose; what is
put in and taken out of messages is typed in `asr.riva_codec`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from riva.client.proto import health_pb2 as health
from riva.client.proto import health_pb2_grpc as health_grpc
from riva.client.proto import riva_asr_pb2 as asr
from riva.client.proto import riva_asr_pb2_grpc as asr_grpc
from riva.client.proto import riva_audio_pb2 as audio
from riva.client.proto import riva_common_pb2 as common

Message: TypeAlias = Any
"""A protobuf message; which one, the name of the parameter says."""

__all__ = ["Message", "asr", "asr_grpc", "audio", "common", "health", "health_grpc"]
