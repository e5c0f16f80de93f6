"""Protocols between nodes; no client needs them."""
