"""Tests of converter/options."""
