"""The bodies of the commands that look at stores."""
