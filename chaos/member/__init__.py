"""Members of consumer groups as processes of their own, so that they can be frozen and killed like anybody's.

`nursery` forks them: a process that has imported everything and does nothing else. `program` is what each of them does,
with the real Consumer; `voice` is how it tells the runner, which keeps the history (penstock.chaos.history).
"""
