"""Public data sets: what there is and where it comes from."""
