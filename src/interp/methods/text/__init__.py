"""Commands about tokens, predictions and generated text."""
