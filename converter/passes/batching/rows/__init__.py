"""Where the rows of a batch lie in every tensor, and what mixes them.

Answers questions for the plan of the pass. Never edits.
"""
