"""Mutation testing of the converter: python tests/mutation --help."""
