"""The runner of simulated worlds: many seeds in many processes, replay, shrinking, and the proof by mutants.

`make simulate`, `make replay`, `make shrink` and `make mutants` are its front; see `__main__`.

It knows worlds only as `worlds.Worlds`. Nothing here runs inside a world or gives one anything that is not its seed
or its plan.
"""
