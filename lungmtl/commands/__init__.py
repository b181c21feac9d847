"""Commands of the command line, a few lines each over the other rooms."""
