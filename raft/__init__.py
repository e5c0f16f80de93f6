"""Consensus on cluster metadata: the core (pysyncobj, hardened), its journal and transport, and the state machine."""
