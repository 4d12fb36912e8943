"""What does a program say that JAX wrote for XLA?

A part of `runner.scan`, found on its own: the bytecode, what it is compiled for and calls, what it hands back.
"""
