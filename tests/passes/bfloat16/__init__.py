"""Tests of converter/passes/bfloat16."""
