"""Jobs that queue for a cluster and may be placed anew every round; see :mod:`.problem`."""
