"""Tests of converter/passes/batching/rows."""
