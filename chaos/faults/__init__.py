"""The faults, by name. One module a group; `base` says what a fault is."""
