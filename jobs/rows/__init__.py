"""Which rows of the input are scored? Runs of rows, and the words by which a job chooses.

Pure. The invariant: the same words and the same files choose the same rows on every machine and every day.
"""
