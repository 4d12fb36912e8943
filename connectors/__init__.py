"""WHERE rows come from and go to: file systems and file formats. Knows nothing of models, GPUs or Ray.

May import: jobs. Here lie the two words that all of it shares, `secret` and `failpoint`.
Where do rows come from, and where do they go?
"""
