"""Backends around backends: each adds one behaviour to whatever is inside."""
