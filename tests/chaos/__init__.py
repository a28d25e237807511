"""Faults on purpose: what the gateway promises while its recognizer, its network or its clients fail."""
