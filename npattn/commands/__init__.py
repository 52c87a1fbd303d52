"""The sub-commands of `npattn`, a file each: what argparse takes, and what is printed. The work is done elsewhere."""
