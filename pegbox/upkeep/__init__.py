"""What an operator does beside the server, while it runs or not: verify, collect garbage, back up, restore, examine."""
