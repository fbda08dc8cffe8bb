"""Tests of converter/reports."""
