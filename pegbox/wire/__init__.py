"""What crosses HTTP, in the API's own words: pydantic models and no logic. Knows nothing else of pegbox."""
