"""Environment files: their typed form, and how they are read."""
