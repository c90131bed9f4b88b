"""From maps to boxes, and the table that holds them."""
