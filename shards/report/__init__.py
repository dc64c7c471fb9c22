"""Pages about a packed set for people: the data card, the quality page, contact sheets.

May import every other room of `shards` but its commands.
"""
