"""Tests of converter/passes/place_on_tpu."""
