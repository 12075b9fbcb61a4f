"""Allocators served to other programs."""
