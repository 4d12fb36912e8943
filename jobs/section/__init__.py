"""What may stand in each section of a job file?

May import: jobs.errors, jobs.format, jobs.notebook.
"""
