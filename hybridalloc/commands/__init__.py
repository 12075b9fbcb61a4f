"""Commands of ``hybridalloc``, a file each, and how their options read."""
