"""The bodies of the commands in `commands.actions`."""
