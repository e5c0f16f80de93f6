"""The servers and clients under test that are Python: Penstock itself, and the ceiling of its data path."""
