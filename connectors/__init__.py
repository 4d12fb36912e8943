"""WHERE rows come from and go to: file systems and file formats. Knows nothing of models, GPUs or Ray.

May import: jobs. Here lie what all of it shares, `secret` and `failpoint`, and what stores alone need:
`chain` and `together`.
Where do rows come from, and where do they go?
"""
