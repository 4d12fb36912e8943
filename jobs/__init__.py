"""WHAT is to be done: jobs, plans, schedules, as pure values.

Standard library and pydantic only. No clock, no network, no randomness: those are passed in.
"""
