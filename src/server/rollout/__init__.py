"""Which recognizer streams go to, while the gateway runs: on, off, back to the former one, a part to a new one."""
