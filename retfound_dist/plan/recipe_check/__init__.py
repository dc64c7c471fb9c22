"""The recipe check: reports settings that are known to give bad results, before the run costs money.

May import `config` and `estimate`.
"""
