"""What an operator can ask for: each module is one request, from its words to its effect."""
