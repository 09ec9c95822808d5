"""Where rows and bytes rest. Knows no API, no queue rule, no model: only tables, transactions and files."""
