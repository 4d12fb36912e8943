"""Which models are called, how, and may they be?

May import: as runner.preflight.
"""
