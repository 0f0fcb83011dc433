"""What the bundled model is trained on and measured by: words, documents, tokenizer, measures."""
