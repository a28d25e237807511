"""How a stream outlives the recognizer that serves it.

The judges are pure: the time and the dice are arguments, and each can be read and tested alone.

- `breaker`: may this endpoint be tried now? Closed, open, half open with one probe.
- `retry`: is this failure worth another attempt, where, after which pause, and may the whole program afford it?
- `limit`: how many streams does this endpoint carry before its results fall behind the audio?
- `tape`: the audio since the last final, which a next attempt has to hear again.
- `story`: utterance numbers and times of several attempts told as those of one stream.

What uses them:

- `pool`: the endpoints, each with its breaker and its limit, and which of them is next.
- `resilient`: an engine around engines, which opens, watches, replays and renews.
"""
