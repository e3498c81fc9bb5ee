"""Pictures and the report: reads weights, saved values and logs, and changes nothing but the files that it writes."""
