"""How do values of an Arrow type become numbers of a tensor, and which of them cannot?

May import: connectors.formats, runner.tensor, jobs.
"""
