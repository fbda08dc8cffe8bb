"""Tests of converter/saved_model."""
