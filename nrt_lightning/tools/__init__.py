"""Tools around a run: preflight before it, planning of its memory and work, comparison of several."""
