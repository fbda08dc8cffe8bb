"""The variables of a model: what they are, where they go, who uses them. Never edits."""
