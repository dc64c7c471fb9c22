"""Several rows on several labelled sets: shares of the cells, ranks over sets, the page of a suite.

May import `evaluate.report` and all that it may import.
"""
