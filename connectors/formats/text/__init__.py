"""The same of text: CSV and JSON lines?

The invariant: cuts fall between rows alone, and a bad line is a bad row, with its number.
"""
