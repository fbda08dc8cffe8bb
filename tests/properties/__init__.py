"""What holds for every model and every set of options, tried on random ones."""
