"""What a method asks: the game, its token view, and how a method is run and stopped."""
