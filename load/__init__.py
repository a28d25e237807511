"""The load tool: how many real-time streams a gateway carries, and what happens beyond.

    arrivals (who speaks when) → plan → conductor ─► workers (processes) ─► records → summary, knee, leaks → report

`riva-gateway load` is its face. `bench.py` (what the pump costs) and `plain_relay.py` (what it is measured against) are
programs of their own.
"""
