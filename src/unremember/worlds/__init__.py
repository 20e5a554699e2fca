"""Generated data whose truth is known: people and their documents, sciences, and a micro-world of vectors."""
