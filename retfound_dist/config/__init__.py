"""Settings: the schema, TOML files, command-line overrides, and the reference that is printed from them.

May import `io` and `runtime`.
"""
