"""Tests of converter/checkpoint."""
