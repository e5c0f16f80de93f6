"""Dropping what a topic need not keep: retention by the leaders, compaction by every replica.

Pure: `retention` (which batches go), `schedule` (which log is compacted next). Shells: `cleaner` looks after all logs
of the node, `compacting` has them compacted, `compactor` asks the process that plans that.
"""
