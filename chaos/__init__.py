"""Fault injection against real clusters: runs nodes as processes only, never imports the server."""
