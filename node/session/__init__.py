"""This node's registration with the controller: when it registers, heartbeats, and may serve."""

from penstock.node.session.registration import registration
from penstock.node.session.shell import Session

__all__ = ["Session", "registration"]
