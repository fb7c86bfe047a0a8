"""A fleet under random faults, with one promise checked all the time: a manifest that can be read is complete."""
