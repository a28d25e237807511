"""Audio in every shape to the one shape engines take: 16 kHz PCM16 little-endian, mono or channels interleaved.

`AudioDecoder` takes audio piece by piece as it arrives; `open_audio` reads files and pipes. Both say
in `warnings` what was odd and raise `ASRError` for what cannot be used.
"""

from asr.audio.decode import ACCEPTED, AudioDecoder, pcm_ms
from asr.audio.files import AudioSource, open_audio
from asr.audio.formats import AudioFormat, Encoding, Stereo

__all__ = ["ACCEPTED", "AudioDecoder", "AudioFormat", "AudioSource", "Encoding", "Stereo", "open_audio", "pcm_ms"]
