"""`retfound plan`: what a run will do, take and cost, before it starts.

May import `estimate`, `stream`, `formats`, `config` and what lies below them. Imports no torch.
"""
