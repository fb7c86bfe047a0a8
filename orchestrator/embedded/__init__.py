"""
A fleet on this machine for one command, gone when the command ends.

    fleet   starts the fleet, and ends it
    keeper  the process that starts the parts of the fleet, and kills them
    parts   what these parts do
"""

from .fleet import EmbeddedFleet, FleetDied, default_processes, find_server, share_imports

__all__ = ["EmbeddedFleet", "FleetDied", "default_processes", "find_server", "share_imports"]
