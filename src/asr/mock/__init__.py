"""A scripted recognizer: its plan, the pure script, and a misbehaving Riva server that plays it."""
