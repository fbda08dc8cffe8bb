"""Tests of converter/proofs."""
