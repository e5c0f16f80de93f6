"""An operator's script: control_node.py CLUSTER_FOLDER kill|start|running NODE_ID."""

import sys
from pathlib import Path

from penstock.client.devcluster import DevCluster


def main() -> int:
    """Do it; the exit code."""
    cluster, what, node_id = DevCluster.find(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    assert cluster is not None
    if what == "running":
        return 0 if cluster.is_running(node_id) else 1
    if what == "kill":
        cluster.kill(node_id)
    else:
        cluster.start([node_id])
    return 0


if __name__ == "__main__":
    sys.exit(main())
