"""A session with a riva-gateway that survives the loss of its connection.

`core` decides (pure), with `ring` for the audio that may be needed again, `clock` for one clock and one numbering,
and `attempts` for when to connect again; `dial` opens connections, `session` is what the caller holds, and
`opening` is `asr.connect`.
"""
