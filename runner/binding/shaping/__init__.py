"""What is written of an output that is shaped before it leaves the device?

A part of `runner.binding`, found on its own: rankings, labels, single values.
"""
