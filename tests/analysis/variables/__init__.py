"""Tests of converter/analysis/variables."""
