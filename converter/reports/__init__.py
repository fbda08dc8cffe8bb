"""What was done, and what a model holds, for people and as JSON.

Reads results and models. Never edits, and knows no pass by name.
"""
