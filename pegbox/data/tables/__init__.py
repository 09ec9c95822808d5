"""Tables into training rows: CSV, TSV, Excel, Parquet, JSON and text; what their columns mean; what could be better.

rows.py reads any of them; roles.py tells which column asks and which answers; prepare.py writes the rows.
"""
