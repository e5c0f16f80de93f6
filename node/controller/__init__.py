"""The controller: who is alive, who leads, where replicas go; and the way to it from any node.

Pure: `core` decides about nodes and leaders, `leaders` finds who needs one, `topics` plans what users ask for,
`admission` looks after voters. Shells: `shell` runs the core while this node leads consensus (a `reign`), `requests`
answers what is asked, `service` offers that on the peer listener, `client` finds the present controller from any node.
"""

from penstock.node.controller.client import ControllerClient
from penstock.node.controller.requests import Controller
from penstock.node.controller.service import ControllerService

__all__ = ["Controller", "ControllerClient", "ControllerService"]
