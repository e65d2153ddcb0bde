"""What each family of operations becomes, a module for each, and the registry that finds it."""
