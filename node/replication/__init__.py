"""Replication of partitions between nodes: DESIGN section 6, whose rules are quoted by number where they are kept.

`leader`, `follower`, `replica`: pure cores. `source` (leader's side), `fetcher` (follower's side), `replicas`: shells.
"""
