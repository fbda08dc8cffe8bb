"""Tests of converter/graph."""
