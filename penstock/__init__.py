"""Penstock: a durable, partitioned, replicated log with a gRPC API.

This folder only gives the project its import name. Each sub-package is a relative symbolic link to the top-level
folder that owns it (see ARCHITECTURE.md); always import `penstock.<folder>`, never the bare folder name.
"""

__version__ = "0.1.0.dev0"
