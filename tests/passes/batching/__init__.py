"""Tests of converter/passes/batching."""
