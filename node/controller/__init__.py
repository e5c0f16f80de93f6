"""The controller: who is alive, who leads, where replicas go; and the way to it from any node.

`core` decides (pure), `topics` plans what users ask for (pure), `shell` runs them while this node leads consensus,
`service` answers other nodes, `client` finds the present controller from any node.
"""

from penstock.node.controller.client import ControllerClient
from penstock.node.controller.service import ControllerService

__all__ = ["ControllerClient", "ControllerService"]
