"""The server: one node of the cluster. `node.main` is the program `penstockd`, `node.broker` composes its parts."""
