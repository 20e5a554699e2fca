"""Generated data whose truth is known: people with facts, relations and documents, and a micro-world of vectors."""
