"""What evaluations draw: film strips, plots, and the page they stand on."""
