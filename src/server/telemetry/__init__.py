"""What the gateway tells of itself: figures, traces, log lines and a record of each stream."""
