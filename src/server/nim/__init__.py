"""A NIM in this same container: started, watched and ended by `riva-gateway serve` (`NIM_COMMAND`)."""
