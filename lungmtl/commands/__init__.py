"""Commands: what the command line does, a few lines each over the other rooms."""
