"""Tests of converter/analysis."""
