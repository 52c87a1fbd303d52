"""One attention block a file: its formula forward, its gradient backward, and its layer at the end."""
