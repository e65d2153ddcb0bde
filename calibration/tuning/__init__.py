"""What a method that tunes by gradient is made of."""
