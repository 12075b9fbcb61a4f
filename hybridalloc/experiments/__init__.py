"""Comparisons: which methods, in which processes, tuned, trained, evaluated, recorded and mirrored."""
