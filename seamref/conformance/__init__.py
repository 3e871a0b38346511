"""Held against others: recordings of the real code replayed on this machine, room by room."""
