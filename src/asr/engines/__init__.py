"""The recognizers behind the boundary. `asr.build` is the only room that names them all."""
