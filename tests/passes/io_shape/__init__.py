"""Tests of converter/passes/io_shape."""
