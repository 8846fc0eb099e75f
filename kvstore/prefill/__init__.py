"""One prefill per image: its keys and values, projector output and encoder states, into the store."""
