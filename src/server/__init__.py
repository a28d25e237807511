"""The gateway: many faces in front of one boundary (`asr.engine`).

*Face*: a protocol spoken to clients (`faces/`). *Conversation*: the pure core of a message-ordered
face (`conversation.py` has its vocabulary). *Take*: one engine stream inside a conversation.
*Driver*: the one place that owns a conversation's concurrency (`drive.py`). *Refusal*: what an
error looks like on each face (`refusals.py`).
"""
