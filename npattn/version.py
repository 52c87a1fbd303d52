"""The version, in a file that knows nothing else: what is below `import npattn` asks here."""

__version__ = "0.1.0"
