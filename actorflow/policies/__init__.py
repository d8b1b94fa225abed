"""Decisions as data: pure functions of frozen values, with time and chance passed in."""
