"""Real servers, and a proxy that spoils what they say."""
