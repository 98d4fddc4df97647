"""The pocket model: a small Llama that is really trained, and the recipe that trains it."""
