"""Train photonic neural networks on the chip itself, by forward evaluations only."""
