"""What a clinic asks of a classifier: operating points, calibration, decision curves, subgroups.

May import `evaluate.data` and all that it may import.
"""
