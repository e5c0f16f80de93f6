"""Membership of a consumer group: what the group Consumer is made of.

Pure: `member` (what the member may read, and until when), `positions` (what was handed out, asked past, committed),
`commit_queue` (which offsets are sent next). Shells: `stream`, `commits`, `coordinator`, `watchdog`; `reader` holds
them together for the consumer.
"""
