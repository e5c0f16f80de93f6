"""Repeatable benchmarks: what is measured is in `workloads`, how a system is run in `system`."""
