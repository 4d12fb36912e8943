"""What is counted while a run works, and what do the counts say?

Figures and sentences only; nothing here is drawn or printed.
May import: jobs, jobs.schedule.
"""
