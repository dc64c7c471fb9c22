"""The recipe check: settings that are known to end badly, told before the money is spent.

May import `config` and `estimate`.
"""
