"""One operation a file, each a pair of pure functions: the formula forward, and the gradient written by hand."""
