"""What does a job file say, and what may it say, before it is a job?"""
